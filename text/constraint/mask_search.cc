#include "text/constraint/mask_search.h"

#include <algorithm>

namespace chimera::constraint {
namespace {

/// Places looked at for one mask: some 100 ms together. Schemas take a few thousand.
constexpr uint64_t kMaxPlacesLookedAt = 1'000'000;
/// Bytes that a matcher may grow by for one mask.
constexpr size_t kMaxGrowth = size_t{8} << 20;

}  // namespace

bool TokenMask::empty() const {
  return std::all_of(words_.begin(), words_.end(), [](uint64_t word) { return word == 0; });
}

Status too_ambiguous() {
  return {Code::kResourceExhausted,
          "constraint: so many beginnings of it fit the answer so far that they cannot be followed",
          "write it with fewer counts inside counts and fewer alternatives that begin alike"};
}

MaskSearch::MaskSearch(const TokenTable* tokens, bool first, StateId state)
    : tokens_(tokens),
      first_(first),
      state_(state),
      mask_(std::make_shared<TokenMask>(tokens->vocab())),
      path_(tokens->trie(first).max_depth + 1) {
  path_[0] = state;
}

bool MaskSearch::go_on(Matcher& matcher, uint64_t* work) {
  const TokenTrie& trie = tokens_->trie(first_);
  const size_t nodes = trie.byte.size();
  const uint64_t places = matcher.work();
  const size_t bytes = matcher.bytes();
  const size_t before = places_;
  uint64_t visited = 0;
  const auto taken = [&] { return matcher.work() - places + visited / kNodesAWork; };
  while (!over_ && node_ < nodes && taken() < *work) {
    ++visited;
    const size_t depth = trie.depth[node_];
    const StateId next = matcher.next(path_[depth - 1], trie.byte[node_]);
    if (next == Matcher::kDead) {
      node_ = static_cast<size_t>(trie.after[node_]);
      continue;
    }
    if (next == Matcher::kTooMany || before + matcher.work() - places > kMaxPlacesLookedAt ||
        bytes_ + matcher.bytes() - bytes > kMaxGrowth) {
      failed_ = over_ = true;
      break;
    }
    path_[depth] = next;
    for (int32_t t = trie.first_token[node_]; t < trie.first_token[node_ + 1]; ++t) {
      mask_->set(trie.tokens[static_cast<size_t>(t)]);
    }
    ++node_;
  }
  places_ += matcher.work() - places;
  bytes_ += matcher.bytes() - bytes;
  *work -= std::min(*work, taken());
  if (!over_ && node_ >= nodes) finish(matcher);
  return over_;
}

void MaskSearch::finish(const Matcher& matcher) {
  over_ = true;
  if (!matcher.accepts(state_)) return;
  for (const int32_t end : tokens_->ends()) {
    if (end >= 0 && static_cast<size_t>(end) < tokens_->vocab()) mask_->set(end);
  }
}

Result<TokenMaskPtr> MaskSearch::result() const {
  if (failed_) return too_ambiguous();
  return TokenMaskPtr(mask_);
}

}  // namespace chimera::constraint
