// Json as text.
//
// Thread safety: pure functions.
#pragma once

#include <string>
#include <string_view>

#include "base/json/json.h"

namespace chimera {

struct JsonStyle {
  int indent = -1;  // spaces per level, each member on a line of its own; below 0: all on one line
  bool ascii = false;  // characters beyond ASCII as \uXXXX
};

/// `value` as JSON. Text that is not UTF-8 has U+FFFD in its place, a number that is not finite is
/// null. Doubles are written with the fewest digits that read back as the same double, and always
/// with a point or an exponent.
std::string write_json(const Json& value, const JsonStyle& style = {});

/// Appends `text` as a JSON string, quotes and all; a YAML reader takes it for the same text.
void append_json_string(std::string_view text, std::string& out, bool ascii = false);
std::string json_string(std::string_view text);

/// Appends a number as write_json() does.
void append_json_number(double value, std::string& out);

}  // namespace chimera
