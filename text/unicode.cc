#include "text/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <bitset>
#include <cstring>

#include "text/unicode_data.h"

namespace chimera::tokenizer {
namespace {

bool contains(CodePointSet set, uint32_t c) {
  const auto after = std::partition_point(
      set.begin(), set.end(), [c](const CodePointRange& range) { return range.last < c; });
  return after != set.end() && after->first <= c;
}

/// Which blocks of 64 code points hold a changed character: nearly all hold none, and the test of
/// one bit is what looking for them costs.
class ChangedBlocks {
 public:
  ChangedBlocks() {
    for (const CodePointRange& range : changed_characters()) {
      for (uint32_t block = range.first >> kShift; block <= range.last >> kShift; ++block) {
        blocks_.set(block);
      }
    }
  }
  bool may_hold(uint32_t c) const { return blocks_[c >> kShift]; }

 private:
  static constexpr uint32_t kShift = 6;
  std::bitset<(0x110000 >> kShift)> blocks_;
};

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
  if (c < 0x80) return c >= '0' && c <= '9';
  return contains(numeric_characters(), c);
}

bool is_punctuation(uint32_t c) {
  if (c < 0x80) {
    return (c >= 0x21 && c <= 0x2F) || (c >= 0x3A && c <= 0x40) || (c >= 0x5B && c <= 0x60) ||
           (c >= 0x7B && c <= 0x7E);
  }
  return contains(punctuation_characters(), c);
}

bool is_mark(uint32_t c) { return c >= 0x300 && contains(mark_characters(), c); }

bool is_word(uint32_t c) {
  if (c < 0x80) {
    return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || c == '_';
  }
  return contains(word_characters(), c);
}

bool is_unknown_to_normal_forms(uint32_t c) { return contains(unknown_to_normal_forms(), c); }

uint32_t to_lower(uint32_t c) {
  const auto lower = static_cast<uint32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c)));
  const auto added = new_lowercase();
  if (lower != c || c < added.front().from) return lower;
  const auto at = std::partition_point(
      added.begin(), added.end(), [c](const CaseMapping& mapping) { return mapping.from < c; });
  return at != added.end() && at->from == c ? at->to : c;
}

bool has_changed_characters(std::string_view text) {
  static const ChangedBlocks blocks;
  // What the smallest of them, U+0363, begins with.
  constexpr uint8_t kFirstLead = 0xCD;
  constexpr uint64_t kHighBits = 0x8080808080808080u;
  for (size_t pos = 0; pos < text.size();) {
    uint64_t eight = 0;
    if (pos + sizeof(eight) <= text.size()) {
      std::memcpy(&eight, text.data() + pos, sizeof(eight));
      if ((eight & kHighBits) == 0) {
        pos += sizeof(eight);
        continue;
      }
    }
    const size_t length = char_length(text[pos]);
    if (static_cast<uint8_t>(text[pos]) >= kFirstLead) {
      const uint32_t c = decode_char(text, pos).code_point;
      if (blocks.may_hold(c) && contains(changed_characters(), c)) return true;
    }
    pos += length;
  }
  return false;
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
