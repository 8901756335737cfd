// Text of others as messages and logs show it: nothing in it drives a terminal, forges a line or
// breaks the UTF-8 around it.
//
// Thread safety: pure functions.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace chimera {

/// Appends `text` with control characters (U+0000 to U+001F, U+007F to U+009F) and bytes that are
/// not UTF-8 as \xNN. With `quotable`, a quotation mark and a backslash get a backslash before
/// them.
void append_visible(std::string_view text, std::string& out, bool quotable = false);

/// `text` in double quotes, made visible. Of a longer one the first `max_bytes`, to the end of a
/// character, and "…".
std::string quote(std::string_view text, size_t max_bytes = 96);

}  // namespace chimera
