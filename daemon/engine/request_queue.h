// RequestQueue: requests from their arrival to their admission, and who is still owed an answer.
//
// Invariants: (1) a request that add() took is outstanding until ended() names it, and nothing else
// is; (2) it leaves the queue once: by take_next, take_if or close; (3) once draining or closed,
// nothing is added.
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
#include "daemon/engine/doorbell.h"
#include "daemon/engine/sequence/request.h"
#include "daemon/engine/sequence/sequence.h"

namespace chimera {

class RequestQueue {
 public:
  /// At most `limit` requests wait. `bell` outlives the queue and is rung when there is work.
  RequestQueue(int64_t limit, Doorbell* bell) : limit_(limit), bell_(bell) {}

  // --- any thread -----------------------------------------------------------------------------
  /// Takes a request whose fields have been checked. unavailable when draining or closed,
  /// resource_exhausted when full.
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
  /// The first one if `fits` holds for it. First come, first served: one that does not fit yet is
  /// not overtaken, or a stream of small ones could starve it.
  template <class Fits>
  std::optional<PendingRequest> take_next(const Fits& fits);
  /// The terminal events of `ids` were sent.
  void ended(std::span<const RequestId> ids);
  /// Refuses new requests for good and gives back those that wait.
  std::vector<PendingRequest> close();

 private:
  const int64_t limit_;
  Doorbell* const bell_;

  mutable Mutex mutex_;
  CondVar drained_;
  std::deque<PendingRequest> waiting_ GUARDED_BY(mutex_);
  // Queued or live, terminal event not sent.
  std::unordered_set<RequestId> outstanding_ GUARDED_BY(mutex_);
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
  std::move(gone, waiting_.end(), std::back_inserter(taken));
  waiting_.erase(gone, waiting_.end());
  return taken;
}

template <class Fits>
std::optional<PendingRequest> RequestQueue::take_next(const Fits& fits) {
  const MutexLock lock(mutex_);
  if (waiting_.empty() || !fits(std::as_const(waiting_.front()))) return std::nullopt;
  PendingRequest next = std::move(waiting_.front());
  waiting_.pop_front();
  return next;
}

}  // namespace chimera
