// UTF-8 and Unicode helpers of the tokenizer: checked decoding, lossy repair, the character classes
// that tokenizer.json components are defined with, and the byte-level alphabet.
//
// Thread safety: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace chimera::tokenizer {

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD

/// Byte offset of the first ill-formed sequence; empty when `text` is valid UTF-8.
std::optional<size_t> find_invalid_utf8(std::string_view text);

struct DecodedChar {
  uint32_t code_point;
  size_t length;  // bytes
};
/// The character at `pos`. REQUIRES: `text` is valid UTF-8 and `pos` < size() starts a character.
DecodedChar decode_char(std::string_view text, size_t pos);
/// Byte length of the character that `lead` starts in valid UTF-8.
size_t char_length(char lead);
void append_char(uint32_t code_point, std::string& out);

/// Moves every byte of `pending` whose meaning is settled to `out`: whole characters as they are,
/// each maximal ill-formed subpart as one U+FFFD. What remains is a sequence that further bytes
/// may complete; with `final` it becomes U+FFFD as well.
void drain_lossy(std::string& pending, bool final, std::string& out);

/// `bytes` with every ill-formed part as U+FFFD, for messages.
std::string lossy(std::string_view bytes);

bool is_white_space(uint32_t c);  // Unicode White_Space
bool is_numeric(uint32_t c);      // general categories Nd, Nl, No
bool is_punctuation(uint32_t c);  // general categories P*, and the ASCII symbols
bool is_word(uint32_t c);         // Alphabetic, M, Nd, Pc, and the two joiners
bool is_mark(uint32_t c);         // general categories M*

/// The visible character that byte-level BPE vocabularies write for `byte` (GPT-2's table).
uint32_t byte_level_char(uint8_t byte);
/// The byte that `code_point` stands for; -1 when it is outside the alphabet.
int byte_level_byte(uint32_t code_point);
/// Every byte of `bytes` as its byte-level character, in UTF-8.
std::string to_byte_level(std::string_view bytes);
/// The bytes that `token` stands for; the token itself when any character is outside the alphabet.
std::string from_byte_level(std::string_view token);

}  // namespace chimera::tokenizer
