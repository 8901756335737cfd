#include "clients/gateway/run/as_one.h"

#include <fmt/format.h>

#include <utility>

namespace chimera::gateway {

CallsAsOne::Take CallsAsOne::done(size_t choice, uint64_t epoch, Time now) {
  progress_ = now;
  if (epoch_ && epoch < *epoch_) return Take::kOnceMore;
  const bool changed = epoch_ && epoch > *epoch_;
  if (changed && ++beginnings_ > kMaxBeginnings) return Take::kGiveUp;
  epoch_ = epoch;
  if (changed) outdated_ = std::exchange(done_, {});
  done_.push_back(choice);
  return changed ? Take::kBeginAnew : Take::kCounts;
}

std::vector<size_t> CallsAsOne::take_outdated() { return std::exchange(outdated_, {}); }

ApiError CallsAsOne::kept_changing() {
  return from_wire({"unavailable",
                    fmt::format("composition: it changed while the inputs were computed, {} times "
                                "(expected one epoch for all)",
                                kMaxBeginnings),
                    "ask again, with fewer inputs at once"});
}

bool CallsAsOne::shorten_deadline(wire::Call& call, std::chrono::milliseconds spent) {
  auto* embed = std::get_if<wire::Embed>(&call);
  if (embed == nullptr || !embed->deadline_ms) return true;
  *embed->deadline_ms -= spent.count();
  return *embed->deadline_ms > 0;
}

}  // namespace chimera::gateway
