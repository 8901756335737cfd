// Statistics: what the engine counted, for those who ask while it runs.
//
// The engine thread counts into plain members and shows them once per step; readers see the last
// state shown, never half of one. What was counted before an answer is shown before it is sent, so
// a client that saw its answer finds itself counted.
//
// Thread safety: read() from any thread, the rest from the engine thread.
#pragma once

#include <chrono>
#include <cstddef>
#include <list>
#include <set>
#include <string>
#include <vector>

#include "base/threads/mutex.h"
#include "daemon/engine/engine.h"

namespace chimera {

class Statistics {
 public:
  /// Percentiles are over this many steps: about ten seconds of decoding.
  static constexpr size_t kStepWindow = 1000;

  Statistics();

  /// Counts since the start, to be raised by whoever does what they count.
  EngineStats& counters() { return counters_; }
  /// Where passes count their routing; what is there is moved on when it is shown.
  RouterStats* router() { return &router_; }
  /// Forgets the routing of modules that are not among `in_use`, but for those that left last: at
  /// most kGoneModules, so that names that come and go do not add up.
  void keep_modules(const std::set<std::string>& in_use);
  void record_step(double ms);

  /// How many modules that are in no table are remembered.
  static constexpr size_t kGoneModules = 32;

  /// When the router's counts are shown: they are maps, and going through them every step would
  /// cost more than it tells.
  enum class Routing : uint8_t { kNow, kWhenDue };
  /// Makes all of the above readable.
  void show(Routing routing);

  /// The last state shown; `waiting` and `rejected` are the queue's to fill in.
  EngineStats read() const;
  /// Its `canary` alone: at no cost.
  CanaryCounts read_canary() const;

 private:
  // Engine thread only.
  EngineStats counters_;
  RouterStats router_;  // not shown yet
  std::chrono::steady_clock::time_point routing_shown_;
  std::vector<float> recorded_;  // steps not shown yet

  mutable Mutex mutex_;
  EngineStats shown_ GUARDED_BY(mutex_);  // with empty `router` and percentiles
  RouterStats shown_router_ GUARDED_BY(mutex_);
  std::list<std::string> gone_ GUARDED_BY(mutex_);  // in shown_router_ and no table; oldest first
  std::vector<float> step_ms_ GUARDED_BY(mutex_);   // ring of the last kStepWindow steps
  size_t next_step_ GUARDED_BY(mutex_) = 0;
};

/// The value below which `fraction` of `values` lie; 0 when there are none.
double percentile(std::vector<float> values, double fraction);

}  // namespace chimera
