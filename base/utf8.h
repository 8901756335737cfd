// UTF-8: checking, decoding, repairing.
//
// Thread safety: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace chimera {

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD

/// Byte offset of the first ill-formed sequence; empty when `text` is valid UTF-8.
std::optional<size_t> find_invalid_utf8(std::string_view text);

enum class Utf8 : uint8_t { kComplete, kTruncated, kInvalid };
/// What begins at `pos`, and how many bytes belong to it: of a whole character its bytes, else the
/// maximal ill-formed part, which one replacement character stands for. kTruncated when further
/// bytes could complete it. REQUIRES: `pos` < size().
Utf8 scan_utf8(std::string_view text, size_t pos, size_t& length);

/// Bytes of the character at `pos`, 0 when what is there is ill-formed. REQUIRES: `pos` < size().
size_t utf8_length(std::string_view text, size_t pos = 0);

struct DecodedChar {
  uint32_t code_point;
  size_t length;  // bytes
};
/// The character at `pos`. REQUIRES: `text` is valid UTF-8 and `pos` < size() starts a character.
DecodedChar decode_char(std::string_view text, size_t pos);
/// Byte length of the character that `lead` starts in valid UTF-8.
size_t char_length(char lead);
/// REQUIRES: a Unicode scalar value.
void append_char(uint32_t code_point, std::string& out);

/// Moves every byte of `pending` whose meaning is settled to `out`: whole characters as they are,
/// each maximal ill-formed subpart as one U+FFFD. What remains is a sequence that further bytes
/// may complete; with `final` it becomes U+FFFD as well.
void drain_lossy(std::string& pending, bool final, std::string& out);

/// `bytes` with every ill-formed part as U+FFFD.
std::string lossy(std::string_view bytes);

/// The longest beginning of `text` of at most `max_bytes` that splits no character.
std::string_view cut_utf8(std::string_view text, size_t max_bytes);

}  // namespace chimera
