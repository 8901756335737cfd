// MaskSearch: which tokens go on from a state, found in portions.
//
// The trie of the tokens is walked along the automaton: what no text begins with is left out as a
// whole. A hostile constraint may take some 100 ms for it, so whoever must not wait that long goes
// on a little at a time. The portions do not change what is found.
//
// Thread safety: none.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/status.h"
#include "text/constraint/matcher.h"
#include "text/constraint/token_table.h"

namespace chimera::constraint {

/// A bit for each token of the vocabulary.
class TokenMask {
 public:
  explicit TokenMask(size_t vocab) : words_((vocab + 63) / 64, 0) {}
  void set(int32_t token) { words_[word(token)] |= uint64_t{1} << (token & 63); }
  bool contains(int32_t token) const { return (words_[word(token)] >> (token & 63) & 1) != 0; }
  const std::vector<uint64_t>& words() const { return words_; }
  bool empty() const;

 private:
  static size_t word(int32_t token) { return static_cast<size_t>(token) / 64; }
  std::vector<uint64_t> words_;
};
using TokenMaskPtr = std::shared_ptr<const TokenMask>;

Status too_ambiguous();

class MaskSearch {
 public:
  /// Work that costs about 0.1 µs: a place looked at by the matcher, or so many nodes of the trie
  /// whose states were known.
  static constexpr uint64_t kNodesAWork = 16;

  /// `tokens` outlives this.
  MaskSearch(const TokenTable* tokens, bool first, StateId state);

  /// Goes on for about `work`, one step of the matcher more at most, and takes from it what it
  /// took. True when the mask is found, or cannot be. `matcher`: the same one in every call.
  bool go_on(Matcher& matcher, uint64_t* work);
  /// REQUIRES: go_on was true. resource_exhausted when the constraint is too ambiguous here.
  Result<TokenMaskPtr> result() const;
  /// Of what: a state, and whether of the empty text.
  StateId state() const { return state_; }
  bool first() const { return first_; }

 private:
  void finish(const Matcher& matcher);

  const TokenTable* const tokens_;
  const bool first_;
  const StateId state_;
  std::shared_ptr<TokenMask> mask_;
  std::vector<StateId> path_;  // by depth
  size_t node_ = 0;
  uint64_t places_ = 0;  // looked at
  size_t bytes_ = 0;     // that the matcher grew by
  bool over_ = false, failed_ = false;
};

}  // namespace chimera::constraint
