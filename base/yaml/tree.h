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

#include "base/fields/problems.h"
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

  Place place() const { return {line, column}; }
  /// What an error message calls it: the quoted text (of a longer one `max_bytes`, control bytes
  /// escaped), "a list", "a map" or "nothing".
  std::string found(size_t max_bytes = 60) const;
  /// The node in flow style, e.g. {"source": "wikipedia", "license": "CC-BY-4.0"}.
  std::string flow() const;
};

struct YamlEntry {
  YamlNode key;  // a scalar
  YamlNode value;
};

/// Problems of a document that is read as a tree.
class YamlProblems : public Problems {
 public:
  explicit YamlProblems(std::string label) : Problems(std::move(label)) {}
  using Problems::add;
  void add(const YamlNode& at, std::string text) { add(at.place(), {.text = std::move(text)}); }
  /// "KEY: found X (expected Y)".
  void add(const YamlNode& at, std::string_view key, std::string_view expected);
};

/// Exactly one document of valid UTF-8 without control characters. Syntax errors end the reading;
/// duplicate keys are added to `problems` (the first one counts).
Result<YamlNode> parse_yaml(std::string_view text, const std::string& label,
                            YamlProblems& problems);

}  // namespace chimera
