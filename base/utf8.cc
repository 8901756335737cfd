#include "base/utf8.h"

#include <algorithm>

namespace chimera {
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

}  // namespace

Utf8 scan_utf8(std::string_view text, size_t pos, size_t& length) {
  const Lead lead = classify_lead(byte_at(text, pos));
  length = 1;
  if (lead.length == 1) return Utf8::kComplete;
  if (lead.length == 0) return Utf8::kInvalid;
  while (length < lead.length) {
    if (pos + length == text.size()) return Utf8::kTruncated;
    const uint8_t b = byte_at(text, pos + length);
    const uint8_t low = length == 1 ? lead.second_low : uint8_t{0x80};
    const uint8_t high = length == 1 ? lead.second_high : uint8_t{0xBF};
    if (b < low || b > high) return Utf8::kInvalid;
    ++length;
  }
  return Utf8::kComplete;
}

std::optional<size_t> find_invalid_utf8(std::string_view text) {
  size_t pos = 0;
  while (pos < text.size()) {
    if (byte_at(text, pos) < 0x80) {
      ++pos;
      continue;
    }
    size_t length = 0;
    if (scan_utf8(text, pos, length) != Utf8::kComplete) return pos;
    pos += length;
  }
  return std::nullopt;
}

size_t utf8_length(std::string_view text, size_t pos) {
  size_t length = 0;
  return scan_utf8(text, pos, length) == Utf8::kComplete ? length : 0;
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
  const auto put = [&out](uint32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (c < 0x80) return put(c);
  if (c < 0x800) {
    put(0xC0 | c >> 6);
  } else {
    if (c < 0x10000) {
      put(0xE0 | c >> 12);
    } else {
      put(0xF0 | c >> 18);
      put(0x80 | (c >> 12 & 0x3F));
    }
    put(0x80 | (c >> 6 & 0x3F));
  }
  put(0x80 | (c & 0x3F));
}

void drain_lossy(std::string& pending, bool final, std::string& out) {
  size_t pos = 0;
  while (pos < pending.size()) {
    size_t length = 0;
    const Utf8 found = scan_utf8(pending, pos, length);
    if (found == Utf8::kTruncated && !final) break;
    if (found == Utf8::kComplete) {
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

std::string_view cut_utf8(std::string_view text, size_t max_bytes) {
  size_t end = std::min(text.size(), max_bytes);
  while (end > 0 && end < text.size() && (byte_at(text, end) & 0xC0) == 0x80) --end;
  return text.substr(0, end);
}

}  // namespace chimera
