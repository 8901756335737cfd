// Typed access to one map of a YAML document: every getter notes what is wrong with the position
// and the dotted name, and leaves the default in place. finish() notes the keys that nobody asked
// for.
//
// Thread safety: none; by the thread that reads.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/yaml/tree.h"

namespace chimera::gateway {

class YamlFields {
 public:
  /// `node` and `problems` outlive the reader. A node that is no map is noted.
  YamlFields(const YamlNode& node, std::string path, YamlProblems& problems);

  const YamlNode* find(std::string_view key);
  std::string path_of(std::string_view key) const;
  const YamlNode& at() const { return node_; }

  bool text(std::string_view key, std::string& out, std::string_view expected = "text");
  void integer(std::string_view key, int64_t min, int64_t max, int64_t& out);
  void list(std::string_view key, std::vector<std::string>& out, std::string_view expected);
  /// Index of the spelling, -1 when absent or another.
  int choice(std::string_view key, std::initializer_list<std::string_view> spellings);
  void bad(std::string_view key, const YamlNode& at, std::string_view expected);
  void finish();

 private:
  const YamlNode& node_;
  const std::string path_;
  YamlProblems& problems_;
  std::vector<std::string_view> known_;
};

/// A scalar that can be nothing but text, and is not empty.
bool is_text(const YamlNode& node);

}  // namespace chimera::gateway
