// Unigram language model (Kudo 2018, arXiv 1804.10959): of all ways to write a piece as tokens the
// one with the largest sum of scores, found by Viterbi's algorithm from left to right.
//
// A character that is no token by itself counts as the unknown token with a score of 10 below the
// smallest; neighbouring unknown characters are fused, and become byte tokens with byte_fallback
// where the vocabulary has them. Costs O(n · length of the longest token) for a piece of n bytes.
//
// Thread safety: immutable after from_json but for the word cache, which is lock-free.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/tokenizer/model/json.h"
#include "text/tokenizer/model/model.h"
#include "text/tokenizer/model/trie.h"
#include "text/tokenizer/model/word_cache.h"

namespace chimera::tokenizer {

class Unigram : public TokenModel {
 public:
  static Result<std::unique_ptr<TokenModel>> from_json(const Json& json,
                                                       const Vocabulary& vocabulary);

  bool encode(std::string_view piece, bool allow_special, std::vector<int32_t>& ids) const override;

 private:
  // The best way to write the text up to some place.
  struct Best {
    double score = 0;
    size_t begin = 0;  // where its last token begins
    int32_t id = kNoToken;
    bool reached = false;
  };

  explicit Unigram(const Vocabulary& vocabulary) : vocabulary_(vocabulary) {}

  Status read(const Json& json);
  bool blocked(int32_t id, bool allow_special) const {
    return !allow_special && vocabulary_.is_special(id);
  }
  bool find_best(std::string_view piece, bool allow_special, std::vector<Best>& best) const;
  void add_unknown(std::string_view run, bool allow_special, std::vector<int32_t>& ids) const;

  const Vocabulary& vocabulary_;
  PrefixTrie trie_;
  std::vector<double> scores_;  // [vocabulary size of the model]
  double unknown_score_ = 0;
  int32_t unknown_ = kNoToken;
  bool byte_fallback_ = false;
  std::array<int32_t, 256> fallback_ids_{};  // "<0x00>" … "<0xFF>"
  WordCache cache_;
};

}  // namespace chimera::tokenizer
