// YAML read into a plain tree that remembers where everything stands.
//
// yaml-cpp's own tree accepts duplicate keys and expands aliases; this reader refuses both, and
// anchors, tags and nesting deeper than 32, while it parses (reliability R19).
//
// Does not interpret: numbers and booleans stay text.
//
// Thread safety: values and free functions, from any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"

namespace chimera {

struct YamlEntry;

struct YamlNode {
  enum class Kind : uint8_t { kNull, kScalar, kList, kMap };
  Kind kind = Kind::kNull;
  int line = 1;                 // from 1
  int column = 1;               // from 1
  bool plain = false;           // scalar without quotes, the only kind that may stand for a number
  std::string text;             // of a scalar
  std::vector<YamlNode> items;  // of a list
  std::vector<YamlEntry> entries;  // of a map, in order

  /// What an error message calls it: the quoted text (shortened, control bytes escaped), "a list",
  /// "a map" or "nothing".
  std::string found() const;
  /// The node in flow style, e.g. {"source": "wikipedia", "license": "CC-BY-4.0"}.
  std::string flow() const;
};

struct YamlEntry {
  YamlNode key;  // a scalar
  YamlNode value;
};

/// Problems found in one document, reported together.
class YamlProblems {
 public:
  explicit YamlProblems(std::string label) : label_(std::move(label)) {}
  /// "label:line:column: text".
  void add(const YamlNode& at, const std::string& text);
  /// "label:line:column: KEY: found X (expected Y)".
  void add(const YamlNode& at, std::string_view key, std::string_view expected);
  bool empty() const { return problems_.empty(); }
  /// invalid_argument with one line per problem, in the order of the document; ok when there is
  /// none.
  Status status(std::string hint) const;

 private:
  std::string label_;
  struct Problem {
    int line, column;
    std::string text;
  };
  std::vector<Problem> problems_;
  size_t dropped_ = 0;
};

/// Exactly one document of valid UTF-8 without control characters. Syntax errors end the reading;
/// duplicate keys are added to `problems` (the first one counts).
Result<YamlNode> parse_yaml(std::string_view text, const std::string& label,
                            YamlProblems& problems);

}  // namespace chimera
