// Unicode helpers of the tokenizer: the character classes that tokenizer.json components are
// defined with, and the byte-level alphabet.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/utf8.h"

namespace chimera::tokenizer {

// Classes in the versions of Unicode that unicode_data.h gives.
bool is_white_space(uint32_t c);  // Unicode White_Space
bool is_numeric(uint32_t c);      // general categories Nd, Nl, No
bool is_punctuation(uint32_t c);  // general categories P*, and the ASCII symbols
bool is_word(uint32_t c);         // Alphabetic, M, Nd, Pc, and the two joiners
bool is_mark(uint32_t c);         // general categories M*
/// Whether normal forms leave `c` alone because it came later than they.
bool is_unknown_to_normal_forms(uint32_t c);
/// Lower case of one character by one character.
uint32_t to_lower(uint32_t c);
/// Whether a character of `text`, valid UTF-8, has changed since the tables of PCRE2.
bool has_changed_characters(std::string_view text);

/// The visible character that byte-level BPE vocabularies write for `byte` (GPT-2's table).
uint32_t byte_level_char(uint8_t byte);
/// The byte that `code_point` stands for; -1 when it is outside the alphabet.
int byte_level_byte(uint32_t code_point);
/// Every byte of `bytes` as its byte-level character, in UTF-8.
std::string to_byte_level(std::string_view bytes);
/// The bytes that `token` stands for; the token itself when any character is outside the alphabet.
std::string from_byte_level(std::string_view token);

}  // namespace chimera::tokenizer
