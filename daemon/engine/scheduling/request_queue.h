// RequestQueue: requests from their arrival to their admission, in which order accounts get their
// turn, and who is still owed an answer.
//
// Invariants: (1) a request that add() took is outstanding until ended() names it, and nothing else
// is; (2) it leaves the queue once: by take_next, take_if, take_displaced or close; (3) once
// draining or closed, nothing is added; (4) an account whose requests wait is passed over only for
// its own limits or for accounts that were served less (accounts.h).
//
// Thread safety: methods of the first group may be called from any thread, those of the second from
// the engine thread. One mutex, held for moves of pointers and what take_if() is given: no call out
// of the engine, so neither side holds up the other.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <deque>
#include <iterator>
#include <memory>
#include <optional>
#include <span>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/status.h"
#include "base/threads/mutex.h"
#include "daemon/engine/scheduling/accounts.h"
#include "daemon/engine/scheduling/doorbell.h"
#include "daemon/engine/sequence/request.h"
#include "daemon/engine/sequence/sequence.h"

namespace chimera {

/// The end of a request, and the tokens that it took.
struct RequestEnd {
  RequestId id = 0;
  int64_t tokens = 0;
};

class RequestQueue {
 public:
  static constexpr uint64_t kMaxOutput = uint64_t{64} << 20;
  /// At most `limit` requests wait, and of one account the large answers that nobody read yet keep
  /// to `max_output` bytes. `bell` outlives the queue and is rung when there is work.
  RequestQueue(int64_t limit, Doorbell* bell, uint64_t max_output = kMaxOutput)
      : limit_(limit), bell_(bell), accounts_(max_output, [bell] { bell->ring(); }) {}

  // --- any thread -----------------------------------------------------------------------------
  /// Takes a request whose fields have been checked. unavailable when draining or closed,
  /// resource_exhausted when its account has as many waiting as it may have, or the queue is full:
  /// of all that wait when no other account has more, else the newest of the account with the most
  /// has to go for it (longest queue drop).
  Result<RequestId> add(EngineRequest request, std::shared_ptr<EventSink> sink);
  /// Has the engine end a request; no effect when it already ended.
  void cancel(RequestId id);
  /// Gives a request other rights, at once when it waits, else with the next step.
  void entitle(RequestId id, ModuleRightsPtr rights);
  /// Refuses new requests; returns once none is outstanding, or false when `timeout` passed.
  bool drain(std::chrono::milliseconds timeout);
  /// Counts a request that was refused before it came here.
  void count_refusal();
  struct Counts {
    int64_t waiting = 0;
    uint64_t refused = 0;  // by add() and count_refusal()
  };
  Counts counts() const;

  // --- engine thread --------------------------------------------------------------------------
  /// Nothing waits and nothing is to be cancelled or given other rights.
  bool idle() const;
  /// What was asked to be cancelled since the last call.
  std::unordered_set<RequestId> take_cancels();
  /// The new rights of requests that do not wait, since the last call.
  std::unordered_map<RequestId, ModuleRightsPtr> take_rights();
  /// The waiting requests for which `match` holds, in order of arrival.
  template <class Match>
  std::vector<PendingRequest> take_if(const Match& match);
  /// The next one if `fits` holds for it: the first of the account that was served least, among
  /// those that may start one. One that does not fit yet is not overtaken, or a stream of small
  /// ones could starve it.
  template <class Fits>
  std::optional<PendingRequest> take_next(const Fits& fits);
  /// What had to go for requests of other accounts, and why.
  std::vector<std::pair<PendingRequest, Status>> take_displaced();
  /// The terminal events of these were sent.
  void ended(std::span<const RequestEnd> ends);
  /// Refuses new requests for good and gives back those that wait.
  std::vector<PendingRequest> close();

 private:
  /// Queued or live, terminal event not sent.
  struct Outstanding {
    Accounts::State* account = nullptr;
    int64_t expected_tokens = 0;
    bool started = false;
  };
  using Waiting = std::deque<PendingRequest>;

  /// The next to start, or the end.
  Waiting::iterator next_in_turn() REQUIRES(mutex_);
  void displace(Accounts::State& account) REQUIRES(mutex_);
  Accounts::State& account_of(const PendingRequest& pending) REQUIRES(mutex_) {
    return *outstanding_.at(pending.id).account;
  }

  const int64_t limit_;
  Doorbell* const bell_;

  mutable Mutex mutex_;
  CondVar drained_;
  Accounts accounts_ GUARDED_BY(mutex_);
  Waiting waiting_ GUARDED_BY(mutex_);  // in order of arrival
  std::vector<std::pair<PendingRequest, Status>> displaced_ GUARDED_BY(mutex_);
  uint64_t turns_ GUARDED_BY(mutex_) = 0;
  std::unordered_map<RequestId, Outstanding> outstanding_ GUARDED_BY(mutex_);
  std::unordered_set<RequestId> cancels_ GUARDED_BY(mutex_);  // subset of outstanding_
  std::unordered_map<RequestId, ModuleRightsPtr> rights_ GUARDED_BY(mutex_);  // likewise
  RequestId next_id_ GUARDED_BY(mutex_) = 1;
  uint64_t refused_ GUARDED_BY(mutex_) = 0;
  bool closed_ GUARDED_BY(mutex_) = false;  // draining or stopping
};

template <class Match>
std::vector<PendingRequest> RequestQueue::take_if(const Match& match) {
  std::vector<PendingRequest> taken;
  const MutexLock lock(mutex_);
  // Asked at every step and nearly always in vain: then nothing is moved or allocated.
  if (std::none_of(waiting_.begin(), waiting_.end(), match)) return taken;
  const auto gone =
      std::stable_partition(waiting_.begin(), waiting_.end(),
                            [&](const PendingRequest& pending) { return !match(pending); });
  std::for_each(gone, waiting_.end(), [this](const PendingRequest& pending) REQUIRES(mutex_) {
    accounts_.leaves(account_of(pending));
  });
  std::move(gone, waiting_.end(), std::back_inserter(taken));
  waiting_.erase(gone, waiting_.end());
  return taken;
}

template <class Fits>
std::optional<PendingRequest> RequestQueue::take_next(const Fits& fits) {
  const MutexLock lock(mutex_);
  const auto found = next_in_turn();
  if (found == waiting_.end() || !fits(std::as_const(*found))) return std::nullopt;
  PendingRequest next = std::move(*found);
  waiting_.erase(found);
  Outstanding& entry = outstanding_.at(next.id);
  entry.started = true;
  accounts_.starts(*entry.account, next.request);
  return next;
}

}  // namespace chimera
