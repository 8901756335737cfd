#include "text/unicode.h"

#include <utf8proc.h>

#include <array>

namespace chimera::tokenizer {
namespace {

uint8_t byte_at(std::string_view text, size_t pos) { return static_cast<uint8_t>(text[pos]); }

// How a sequence starting at some byte goes on: the range allowed for the second byte is what
// excludes overlong forms, surrogates and values above U+10FFFF (Unicode table 3-7).
struct Lead {
  size_t length;  // 0: no sequence starts with this byte
  uint8_t second_low;
  uint8_t second_high;
};

Lead classify_lead(uint8_t b) {
  if (b < 0x80) return {1, 0, 0};
  if (b < 0xC2) return {0, 0, 0};
  if (b < 0xE0) return {2, 0x80, 0xBF};
  if (b == 0xE0) return {3, 0xA0, 0xBF};
  if (b == 0xED) return {3, 0x80, 0x9F};
  if (b < 0xF0) return {3, 0x80, 0xBF};
  if (b == 0xF0) return {4, 0x90, 0xBF};
  if (b < 0xF4) return {4, 0x80, 0xBF};
  if (b == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

enum class Scan { kComplete, kInvalid, kTruncated };

// Looks at the sequence at `pos`. `length` is the whole character when complete, else the maximal
// subpart: the bytes that could still begin a character.
Scan scan_sequence(std::string_view text, size_t pos, size_t& length) {
  const Lead lead = classify_lead(byte_at(text, pos));
  length = 1;
  if (lead.length == 1) return Scan::kComplete;
  if (lead.length == 0) return Scan::kInvalid;
  while (length < lead.length) {
    if (pos + length == text.size()) return Scan::kTruncated;
    const uint8_t b = byte_at(text, pos + length);
    const uint8_t low = length == 1 ? lead.second_low : uint8_t{0x80};
    const uint8_t high = length == 1 ? lead.second_high : uint8_t{0xBF};
    if (b < low || b > high) return Scan::kInvalid;
    ++length;
  }
  return Scan::kComplete;
}

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

std::optional<size_t> find_invalid_utf8(std::string_view text) {
  size_t pos = 0;
  while (pos < text.size()) {
    if (byte_at(text, pos) < 0x80) {
      ++pos;
      continue;
    }
    size_t length = 0;
    if (scan_sequence(text, pos, length) != Scan::kComplete) return pos;
    pos += length;
  }
  return std::nullopt;
}

size_t char_length(char lead) {
  const auto b = static_cast<uint8_t>(lead);
  if (b < 0xC0) return 1;
  if (b < 0xE0) return 2;
  return b < 0xF0 ? 3 : 4;
}

DecodedChar decode_char(std::string_view text, size_t pos) {
  const uint8_t b = byte_at(text, pos);
  if (b < 0x80) return {b, 1};
  const size_t length = char_length(text[pos]);
  uint32_t c = b & (0x7Fu >> length);
  for (size_t i = 1; i < length; ++i) c = (c << 6) | (byte_at(text, pos + i) & 0x3Fu);
  return {c, length};
}

void append_char(uint32_t c, std::string& out) {
  std::array<utf8proc_uint8_t, 4> buffer{};
  const auto n = utf8proc_encode_char(static_cast<utf8proc_int32_t>(c), buffer.data());
  for (size_t i = 0; i < static_cast<size_t>(n); ++i) out.push_back(static_cast<char>(buffer[i]));
}

void drain_lossy(std::string& pending, bool final, std::string& out) {
  size_t pos = 0;
  while (pos < pending.size()) {
    size_t length = 0;
    const Scan scan = scan_sequence(pending, pos, length);
    if (scan == Scan::kTruncated && !final) break;
    if (scan == Scan::kComplete) {
      out.append(pending, pos, length);
    } else {
      out += kReplacementCharacter;
    }
    pos += length;
  }
  pending.erase(0, pos);
}

std::string lossy(std::string_view bytes) {
  std::string pending(bytes);
  std::string text;
  drain_lossy(pending, true, text);
  return text;
}

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
