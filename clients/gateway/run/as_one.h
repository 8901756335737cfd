// CallsAsOne: the calls of a request that has many inputs and is one all the same: let in with the
// first that the daemon takes, answered on one epoch, with one deadline.
//
// The daemon knows the calls alone, so what was computed on an epoch that is not the newest any
// more is computed once more. That ends: a composition which keeps changing is told after some
// times.
//
// Thread safety: none.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <vector>

#include "clients/gateway/api/api_error.h"
#include "clients/wire/protocol.h"

namespace chimera::gateway {

class CallsAsOne {
 public:
  using Time = std::chrono::steady_clock::time_point;
  // So often a request begins, and so long it waits for room once it was let in and nothing of it
  // gets on: a client's tokens of a minute are counted anew by then.
  static constexpr int kMaxBeginnings = 4;
  static constexpr std::chrono::seconds kPatience{70};

  enum class Take : uint8_t {
    kCounts,
    kOnceMore,   // it was sent before the composition changed: it alone is to be repeated
    kBeginAnew,  // it counts, and take_outdated() are to be repeated
    kGiveUp      // with kept_changing()
  };
  /// A call is done, on that epoch.
  Take done(size_t choice, uint64_t epoch, Time now);
  /// After kBeginAnew: the others that were done.
  std::vector<size_t> take_outdated();
  /// Whether a call for which the daemon has no room now is to wait for some.
  bool is_let_in(Time now) const { return progress_ && now - *progress_ <= kPatience; }
  static ApiError kept_changing();

  /// Takes what was `spent` off the deadline of a call; false when nothing is left of it.
  static bool shorten_deadline(wire::Call& call, std::chrono::milliseconds spent);

 private:
  std::optional<Time> progress_;  // when a call was done last
  std::optional<uint64_t> epoch_;
  std::vector<size_t> done_, outdated_;
  int beginnings_ = 1;
};

}  // namespace chimera::gateway
