// JSON to values and back, as Python's json module does it.
//
// Thread safety: pure, apart from the Runtime.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "text/template/builtins/runtime.h"

namespace chimera::jinja {

/// Whether strings of a JSON text came from a client (value/text.h). Names of roles that are plain
/// words are taken as the template's own even then: templates build control tokens from them
/// ("<|" + role + "|>"), and such a word cannot hold one.
enum class Origin { kTrusted, kClient };

/// Objects keep the order of their keys, integers all their digits. invalid_argument when `json` is
/// not one JSON value, deeper than 64 levels or larger than a million values.
Result<Value> parse_json(std::string_view json, Origin origin);

struct JsonStyle {
  bool ascii = false;                 // \uXXXX for everything else
  bool sorted = false;                // by key
  std::optional<std::string> indent;  // line by line
  std::string item_separator = ", ", key_separator = ": ";
};
/// json.dumps; fails for what JSON cannot hold.
Text dump_json(Runtime& run, const Value& value, const JsonStyle& style);

}  // namespace chimera::jinja
