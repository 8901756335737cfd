// YAML text as a small tree with positions, for reading untrusted configuration.
//
// Limits come before meaning: 1 MiB of text, depth 32, one document, no anchors, aliases or tags,
// no tabs in indentation, no duplicate keys, UTF-8 only. JSON is accepted as the YAML it is.
// Every problem found is kept, each with line and column, so that a person repairs a file once.
//
// Thread safety: values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "backbone/status.h"

namespace chimera::yaml {

/// A place in a file; both count from 1, columns in bytes.
struct YamlPosition {
  int line = 1;
  int column = 1;
};

struct YamlNode {
  enum class Kind : uint8_t { kNull, kScalar, kSequence, kMap } kind = Kind::kNull;
  YamlPosition at;
  std::string text;             // scalar
  bool quoted = false;          // scalar: a quoted or block scalar is always a string
  std::vector<YamlNode> items;  // sequence
  std::vector<std::pair<std::string, YamlNode>> entries;  // map, in file order, keys distinct
  std::vector<YamlPosition> key_at;                       // position of entries[i].first
};

/// Collects problems and turns them into one Status, in file order.
class YamlProblems {
 public:
  static constexpr size_t kMax = 64;  // more help nobody

  explicit YamlProblems(std::string label) : label_(std::move(label)) {}
  void add(YamlPosition at, std::string message);
  bool empty() const { return problems_.empty(); }
  /// "label:line:column: message" per line; invalid_argument, ok when empty.
  Status status() const;

 private:
  std::string label_;
  std::vector<std::pair<YamlPosition, std::string>> problems_;
};

/// Parses `text`. Problems of the text go to `problems`. Nothing is returned when it could not be
/// read to its end, so that nobody complains about keys that stand behind a syntax error.
std::optional<YamlNode> parse_yaml_tree(std::string_view text, YamlProblems& problems);

inline constexpr size_t kMaxYamlBytes = 1u << 20;
inline constexpr int kMaxYamlDepth = 32;

}  // namespace chimera::yaml
