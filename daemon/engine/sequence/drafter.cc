#include "daemon/engine/sequence/drafter.h"

#include <algorithm>

namespace chimera {
namespace {

// Longer matches say no more: what follows five tokens follows most likely again.
constexpr size_t kMostMatch = 5;
// Steps without a guess after a draft of which nothing held, the first and the most.
constexpr int64_t kFirstRest = 4, kLongestRest = 64;

/// How many of the last tokens stand before `end`, too.
size_t match_length(std::span<const int32_t> tokens, size_t end) {
  const size_t most = std::min(end, kMostMatch);
  size_t length = 0;
  while (length < most && tokens[end - 1 - length] == tokens[tokens.size() - 1 - length]) ++length;
  return length;
}

}  // namespace

std::vector<int32_t> Drafter::draft(std::span<const int32_t> tokens, int64_t room) {
  std::vector<int32_t> draft;
  const int64_t wanted = std::min(most_, room);
  if (wanted <= 0 || tokens.size() < 2) return draft;
  if (resting_ > 0) {
    --resting_;
    return draft;
  }
  // The longest match, of equal ones the latest: people repeat themselves.
  size_t best = 0, best_end = 0;
  for (size_t end = tokens.size() - 1; end > 0 && best < kMostMatch; --end) {
    const size_t length = match_length(tokens, end);
    if (length <= best) continue;
    best = length;
    best_end = end;
  }
  if (best < static_cast<size_t>(kLeastMatch)) return draft;
  // What reaches the last token goes round: a run of tokens goes on as it is.
  for (size_t at = best_end; draft.size() < static_cast<size_t>(wanted); ++at)
    draft.push_back(at < tokens.size() ? tokens[at] : draft[at - tokens.size()]);
  return draft;
}

void Drafter::record(int64_t drafted, int64_t held) {
  if (drafted <= 0) return;
  if (held > 0) {
    most_ = held == drafted ? std::min(kMost, 2 * most_) : held;
    rest_ = 0;
  } else {
    most_ = 1;
    rest_ = std::clamp(2 * rest_, kFirstRest, kLongestRest);
    resting_ = rest_;
  }
}

}  // namespace chimera
