// Executors: who computes experts. Every expert names one, and the router hands it all calls of a
// layer for its experts at once: it may run them together, send them off, or order them.
//
// A layer goes on so that what computes elsewhere does so beside what computes here:
//   1. start() of the executors elsewhere, which waits for nobody;
//   2. run() of the executors here, those of kPool before those of kCaller;
//   3. finish() of all that was started;
//   4. run() of the executors elsewhere: of what they did not start.
// Passes on other threads use the same executors at the same time, and what is started may keep a
// turn that others wait for. Step 4 alone may wait for a turn, and by then the pass keeps none: two
// passes never wait for one another.
//
// Thread safety: executors are used by any number of passes at the same time; the calls and the
// context are those of one pass, and what start() gave is finished on the thread that got it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "experts/expert.h"

namespace chimera {

struct ExpertChange;

/// What an adapter changes of an expert, for rows [first, first + rows) of a call.
struct RowChange {
  const ExpertChange* change = nullptr;  // adapted_expert.h
  int64_t first = 0;
  int64_t rows = 0;
};

/// The rows of one layer that chose one expert: y = expert(x), as Expert::forward.
struct ExpertCall {
  const Expert* expert = nullptr;  // an Expert::current(), of the executor that is given the call
  const float* x = nullptr;        // [rows, hidden]
  int64_t rows = 0;
  float* y = nullptr;  // [rows, hidden]; overlaps with no x and no other y
  /// Changes of one row are added in this order. Adapters change the checkpoint's own experts
  /// alone: of others, and of what is not weights in memory, there are none.
  std::span<const RowChange> changes = {};
  uint64_t deadline_ns = 0;              // as ExpertContext's
  const uint64_t* row_epochs = nullptr;  // as ExpertContext's
  bool done = false;                     // out: `status` says how it ended
  Status status;                         // out: a failure concerns all rows

  /// It ended so.
  void end(Status how) {
    status = std::move(how);
    done = true;
  }
  /// Ends it, not begun, when nobody wants any of its rows any more; whether it did.
  bool end_unwanted();
};

/// `pass`, with what the call has of its own.
ExpertContext context_of(const ExpertCall& call, const ExpertContext& pass);

/// Calls under way outside of the caller's threads.
class RunningCalls {
 public:
  /// Waits for the end, as finish().
  virtual ~RunningCalls() = default;
  /// Waits for the end, and ends the calls. Once, on the thread that started them.
  virtual void finish() = 0;
};

/// Where an executor computes.
enum class ExecutorPlace : uint8_t {
  kElsewhere,  // outside of the caller's threads
  kPool,       // on all threads of the pool at once
  kCaller,     // on the caller's thread, one call after the other; they may use the pool
};

class ExpertExecutor {
 public:
  virtual ~ExpertExecutor() = default;
  virtual ExecutorPlace place() const = 0;
  /// Begins what it can of the calls of a layer without waiting for anybody, on kElsewhere. The
  /// caller's threads are free for other work until finish(). The calls outlive what is returned;
  /// their x and epochs, and what `pass` lends, are free again when start returns, y is the calls'
  /// until they are finished. What is not begun is left to run(). Null: nothing is under way.
  virtual std::unique_ptr<RunningCalls> start(std::span<ExpertCall> /*calls*/,
                                              ExpertContext& /*pass*/) {
    return nullptr;
  }
  /// Runs all calls that are not done, and may wait for others' turns: here, one after the other
  /// by their expert's forward. `pass` has no deadline and no epochs: those are the calls' own.
  virtual void run(std::span<ExpertCall> calls, ExpertContext& pass);
};

/// kCaller, by forward: of libraries in this process, and of all experts that name no other.
ExpertExecutor& caller_executor();

}  // namespace chimera
