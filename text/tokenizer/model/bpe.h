// Byte pair encoding: the symbols of a piece are merged pair by pair in the order of the merge
// list, always the earliest-ranked pair first and the leftmost among equals.
//
// Costs O(n log n) for a piece of n symbols: candidate pairs wait in a heap, symbols form a linked
// list. Short words are scanned for their best pair instead, which is faster up to some two dozen
// symbols. Pieces of whole texts (no pre-tokenizer) are first cut wherever no merge can join the
// two characters: merging cannot cross such a place, so the parts are words that the cache knows.
//
// Thread safety: immutable after from_json but for the word cache, which is lock-free.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/status.h"
#include "text/tokenizer/model/json.h"
#include "text/tokenizer/model/model.h"
#include "text/tokenizer/model/word_cache.h"

namespace chimera::tokenizer {

class Bpe : public TokenModel {
 public:
  static Result<std::unique_ptr<TokenModel>> from_json(const Json& json, PieceForm form,
                                                       const Vocabulary& vocabulary);
  /// See model_reads_bytes.
  static bool reads_bytes(const Json& json);

  bool encode(std::string_view piece, bool allow_special, std::vector<int32_t>& ids) const override;

  /// encode() past the cuts and the word cache. `handled` receives how many heap entries were
  /// handled, for tests of the cost.
  [[nodiscard]] bool encode_uncached(std::string_view piece, bool allow_special,
                                     std::vector<int32_t>& ids, size_t* handled = nullptr) const;

 private:
  struct Merge {
    uint64_t pair = kFree;  // left id << 32 | right id
    uint32_t rank = 0;
    int32_t result = 0;
    static constexpr uint64_t kFree = ~uint64_t{0};
  };
  // Open addressing: a lookup per neighbouring pair is the hottest operation of merging.
  class MergeTable {
   public:
    void reset(size_t count);
    void put(int32_t left, int32_t right, uint32_t rank, int32_t result);  // later entries win
    const Merge* find(int32_t left, int32_t right) const;

   private:
    size_t slot(uint64_t pair) const;
    std::vector<Merge> slots_;
    int shift_ = 0;
  };
  struct Symbol {
    int32_t id;  // kNoToken once merged into its left neighbour
    int32_t previous;
    int32_t next;
  };
  struct Candidate {
    uint64_t order;  // rank << 32 | position of the left symbol
    int32_t result;
    bool operator<(const Candidate& other) const { return order > other.order; }  // min-heap
  };
  struct Scratch {
    std::vector<Symbol> symbols;
    std::vector<Candidate> heap;
  };

  explicit Bpe(const Vocabulary& vocabulary) : vocabulary_(vocabulary) {}

  Status read_options(const Json& json, PieceForm form);
  Status read_merges(const Json& json);
  Status add_merge(std::string_view left, std::string_view right, size_t rank);
  void read_alphabet(PieceForm form);

  bool blocked(int32_t id, bool allow_special) const {
    return !allow_special && vocabulary_.is_special(id);
  }
  int32_t whole_piece(std::string_view piece, bool allow_special) const;
  bool start_symbols(std::string_view piece, bool allow_special, Scratch& s) const;
  bool has_affix(bool first, bool last) const {
    return (!first && !subword_prefix_.empty()) || (last && !word_suffix_.empty());
  }
  std::string with_affixes(std::string_view c, bool first, bool last) const;
  int32_t symbol_id(std::string_view c) const;
  bool encode_word(std::string_view word, bool allow_special, std::vector<int32_t>& ids) const;
  bool may_join(uint32_t left, uint32_t right) const;
  bool add_byte_fallback(std::string_view c, Scratch& s) const;
  bool add_candidate(size_t left, bool allow_special, Scratch& s) const;
  size_t merge_all(bool allow_special, Scratch& s) const;
  size_t merge_short(bool allow_special, std::vector<Symbol>& symbols) const;

  const Vocabulary& vocabulary_;
  MergeTable merges_;
  PieceForm form_ = PieceForm::kCharacters;
  std::array<int32_t, 256> byte_ids_{};             // kBytes: id of each byte
  std::unordered_map<uint32_t, int32_t> char_ids_;  // kCharacters: ids of one-character tokens
  // kCharacters: left << 32 | right for the characters that meet in some merge.
  std::unordered_set<uint64_t> joints_;
  bool cut_ = false;                         // whether pieces are cut where no joint is
  std::array<int32_t, 256> fallback_ids_{};  // "<0x00>" … "<0xFF>"
  std::string subword_prefix_;
  std::string word_suffix_;
  int32_t unknown_ = kNoToken;
  bool unknown_missing_ = false;  // the file names an unknown token that "vocab" lacks
  bool fuse_unknown_ = false;
  bool byte_fallback_ = false;
  bool ignore_merges_ = false;
  WordCache cache_;
};

}  // namespace chimera::tokenizer
