#include "base/quote.h"

#include <fmt/format.h>

#include "base/utf8.h"

namespace chimera {

void append_visible(std::string_view text, std::string& out, bool quotable) {
  for (size_t i = 0; i < text.size();) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const size_t length = utf8_length(text, i);
    // U+0080 to U+009F drive terminals just as the first 32 do.
    const bool c1 = length == 2 && byte == 0xC2 && static_cast<unsigned char>(text[i + 1]) < 0xA0;
    if (length != 0 && byte >= 0x20 && byte != 0x7F && !c1) {
      if (quotable && (byte == '"' || byte == '\\')) out += '\\';
      out += text.substr(i, length);
      i += length;
      continue;
    }
    for (const size_t end = i + (c1 ? 2 : 1); i < end; ++i) {
      fmt::format_to(std::back_inserter(out), "\\x{:02x}", static_cast<unsigned char>(text[i]));
    }
  }
}

std::string quote(std::string_view text, size_t max_bytes) {
  const std::string_view shown = cut_utf8(text, max_bytes);
  std::string out = "\"";
  append_visible(shown, out, /*quotable=*/true);
  return out + (shown.size() < text.size() ? "…\"" : "\"");
}

}  // namespace chimera
