// A text as it is scored: the tokens, with what stands before the first one, and the bytes they
// account for. One place, so that `score` and the probe of a module measure the same number.
//
// Thread safety: free functions, from any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "backbone/families/model_config.h"
#include "base/status.h"
#include "text/tokenizer/tokenizer.h"

namespace chimera {

/// The token that stands before a scored text, so that its first token is predicted, too: what the
/// tokenizer's post-processor puts first, else the end-of-text token. None when there is neither.
std::optional<int32_t> score_prefix_token(const Tokenizer* tokenizer, const ModelConfig& model);

struct ScoreText {
  std::vector<int32_t> tokens;  // `prefix`, if any, then the text's
  int64_t bytes = 0;            // of the text whose tokens are predicted; the divisor of bits/byte
};

/// Encodes `text`. Without a prefix its first token is not predicted and its bytes do not count.
/// invalid_argument, naming `what`: an empty text; otherwise the tokenizer's errors.
Result<ScoreText> score_text(const Tokenizer& tokenizer, std::optional<int32_t> prefix,
                             std::string_view text, std::string_view what);

}  // namespace chimera
