#include "text/unicode.h"

#include <utf8proc.h>

#include <array>

namespace chimera::tokenizer {
namespace {

utf8proc_category_t category(uint32_t c) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(c));
}

struct ByteAlphabet {
  std::array<uint32_t, 256> to_char{};
  std::array<int16_t, 512> to_byte{};
};

// Printable Latin-1 bytes stand for themselves, the other 68 for U+0100 and up, in order.
constexpr ByteAlphabet make_byte_alphabet() {
  ByteAlphabet a;
  for (auto& b : a.to_byte) b = -1;
  uint32_t next = 256;
  for (uint32_t b = 0; b < 256; ++b) {
    const bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
    a.to_char[b] = printable ? b : next++;
    a.to_byte[a.to_char[b]] = static_cast<int16_t>(b);
  }
  return a;
}

constexpr ByteAlphabet kByteAlphabet = make_byte_alphabet();

}  // namespace

bool is_white_space(uint32_t c) {
  if (c < 0x80) return c == ' ' || (c >= 0x09 && c <= 0x0D);
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
         c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_numeric(uint32_t c) {
  const auto k = category(c);
  return k == UTF8PROC_CATEGORY_ND || k == UTF8PROC_CATEGORY_NL || k == UTF8PROC_CATEGORY_NO;
}

bool is_punctuation(uint32_t c) {
  if (c < 0x80) {
    return (c >= 0x21 && c <= 0x2F) || (c >= 0x3A && c <= 0x40) || (c >= 0x5B && c <= 0x60) ||
           (c >= 0x7B && c <= 0x7E);
  }
  const auto k = category(c);
  return k >= UTF8PROC_CATEGORY_PC && k <= UTF8PROC_CATEGORY_PO;
}

bool is_mark(uint32_t c) {
  const auto k = category(c);
  return k >= UTF8PROC_CATEGORY_MN && k <= UTF8PROC_CATEGORY_ME;
}

bool is_word(uint32_t c) {
  const auto k = category(c);
  if (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_NL) return true;  // L*, M*, Nd, Nl
  if (k == UTF8PROC_CATEGORY_PC) return true;
  if (c == 0x200C || c == 0x200D) return true;
  // The symbols with Other_Alphabetic: circled and squared letters.
  return (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) ||
         (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189);
}

uint32_t byte_level_char(uint8_t byte) { return kByteAlphabet.to_char[byte]; }

int byte_level_byte(uint32_t code_point) {
  return code_point < kByteAlphabet.to_byte.size() ? kByteAlphabet.to_byte[code_point] : -1;
}

std::string to_byte_level(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const char b : bytes) append_char(byte_level_char(static_cast<uint8_t>(b)), out);
  return out;
}

std::string from_byte_level(std::string_view token) {
  std::string out;
  out.reserve(token.size());
  for (size_t pos = 0; pos < token.size();) {
    const DecodedChar c = decode_char(token, pos);
    const int byte = byte_level_byte(c.code_point);
    if (byte < 0) return std::string(token);
    out.push_back(static_cast<char>(byte));
    pos += c.length;
  }
  return out;
}

}  // namespace chimera::tokenizer
