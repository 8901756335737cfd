// TokenModel: the "model" of tokenizer.json, which turns one piece of text into ids: BPE or
// Unigram.
//
// Thread safety: encode() is const and may run concurrently; making a model by one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/tokenizer/model/json.h"
#include "text/tokenizer/model/vocabulary.h"

namespace chimera::tokenizer {

/// How a model is to read the pieces that the pre-tokenizer hands it.
enum class PieceForm {
  kCharacters,  // the vocabulary spells characters
  kBytes,       // the vocabulary spells bytes in the byte-level alphabet, pieces hold plain bytes
};

class TokenModel {
 public:
  virtual ~TokenModel() = default;
  /// Appends the ids of `piece` (not empty). Unless `allow_special`, no special token results,
  /// whatever the piece spells; the unknown token is the exception. False when the piece has a
  /// character that the vocabulary cannot express and no unknown token stands for it.
  [[nodiscard]] virtual bool encode(std::string_view piece, bool allow_special,
                                    std::vector<int32_t>& ids) const = 0;
};

/// Enters the tokens of the model described by `json` into `vocabulary`. unimplemented names an
/// unknown model.
Status read_model_tokens(const Json& json, Vocabulary& vocabulary);
/// Builds the model described by `json`. `vocabulary` already holds its tokens and the added ones
/// and must outlive it. unimplemented names an unknown model or option.
Result<std::unique_ptr<TokenModel>> make_token_model(const Json& json, PieceForm form,
                                                     const Vocabulary& vocabulary);
/// Whether the model described by `json` can read pieces as bytes; else it is given characters.
bool model_reads_bytes(const Json& json);

}  // namespace chimera::tokenizer
