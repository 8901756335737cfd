// TokenTable: the tokens that a constrained answer may have, as a trie over their bytes.
//
// Thread safety: immutable.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/tokenizer/tokenizer.h"

namespace chimera::constraint {

/// Stands before a special token's text. No UTF-8 has this byte, so that nothing but a mark of a
/// constraint, which has it too, is written with special tokens.
inline constexpr char kMarkByte = '\xFF';

/// Nodes in depth-first order, so that a walk is one loop and what no text begins with is jumped
/// over. Children in the order of their bytes.
struct TokenTrie {
  std::vector<uint8_t> byte;         // of the edge to the node
  std::vector<uint16_t> depth;       // from 1
  std::vector<int32_t> after;        // the first node behind all that is below
  std::vector<int32_t> first_token;  // of the node's tokens in `tokens`; one more at the end
  std::vector<int32_t> tokens;
  size_t max_depth = 0;
};

class TokenTable {
 public:
  /// `vocab`: logits of the model. Tokens without bytes are none of the table's: they would say
  /// nothing and cost a turn. `ends` end a text.
  TokenTable(std::shared_ptr<const Tokenizer> tokenizer, int64_t vocab,
             std::span<const int32_t> ends);

  /// Of the tokens at the beginning of a text, where decoders take a leading space off, and of
  /// those behind it.
  const TokenTrie& trie(bool at_start) const { return at_start && differs_ ? start_ : middle_; }
  /// Whether the two differ.
  bool start_differs() const { return differs_; }
  std::string_view bytes(int32_t token, bool at_start) const;
  /// Whether `text` is a special token, other than an end.
  bool has_mark(std::string_view text) const;
  bool is_end(int32_t token) const;
  std::span<const int32_t> ends() const { return ends_; }
  size_t vocab() const { return vocab_; }
  /// Memory of the table.
  size_t memory() const;

 private:
  bool usable(int32_t token) const;

  std::shared_ptr<const Tokenizer> tokenizer_;
  size_t vocab_;
  std::vector<int32_t> ends_;
  std::unordered_map<int32_t, std::string> start_bytes_;  // of those that differ there
  std::unordered_map<int32_t, std::string> marks_;        // special tokens, as they are read
  bool differs_ = false;
  TokenTrie middle_, start_;
};

}  // namespace chimera::constraint
