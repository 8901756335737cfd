// FieldReader in the words of deployment files: the problem with its position and dotted name, what
// was found and what was expected.
//
// Thread safety: a reader by one thread, for one reading; free functions from any.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/fields/reader.h"
#include "base/yaml/tree.h"

namespace chimera {

/// "16", "true", "\"text\"", "a list": what stands at a node, for messages. At most 80 bytes.
std::string describe(const YamlNode& node);

/// One map of the file. `keys` are all it may hold; the constructor notes the others.
class MapReader {
 public:
  /// `name` is the dotted path of the map, empty at the top. A node that is no map is noted; the
  /// reader is then empty. `node` outlives the reader.
  MapReader(const YamlNode& node, std::string name, std::span<const std::string_view> keys,
            YamlProblems& problems);

  /// The value of `key`, or null when absent.
  const YamlNode* find(std::string_view key) const;
  std::string path_of(std::string_view key) const { return reader_.path_of(key); }
  /// Where the map stands.
  const YamlNode& at() const { return at_; }
  /// False when the node was no map at all (already noted).
  bool valid() const { return reader_.valid(); }

  void integer(std::string_view key, int64_t min, int64_t max, int64_t* out) const;
  void number(std::string_view key, double limit, float* out) const;
  /// A number above 0, up to `max`.
  void above_zero(std::string_view key, double max, std::optional<double>* out) const;
  void real(std::string_view key, double min, double max, std::optional<double>* out) const;
  /// A map from names to numbers from -limit to limit; of at least one.
  void numbers(std::string_view key, double limit, std::map<std::string, double>* out) const;
  void boolean(std::string_view key, bool* out) const;
  /// A non-empty string. `expected` completes "(expected …)".
  bool string(std::string_view key, std::string_view expected, std::string* out) const;
  void bad(std::string_view key, const YamlNode& node, std::string_view expected) const;

 private:
  const YamlNode& at_;
  mutable FieldReader reader_;  // which keys were asked for is of no account here
};

/// True when the node is text and not a plain number, boolean or null.
bool is_string(const YamlNode& node);

}  // namespace chimera
