// Case folding between one character and several: Oniguruma lets "ss" match U+00DF (and the other
// way round) where case is ignored, PCRE2 folds character by character. The translator refuses
// the places where that would show.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>

namespace chimera::tokenizer {

/// Whether `c` folds to more than one character.
bool folds_to_several(uint32_t c);
/// Whether some character folds to a sequence that begins with the folded `a`, `b`.
bool is_folding_of_one(uint32_t a, uint32_t b);

}  // namespace chimera::tokenizer
