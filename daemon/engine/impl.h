// The inside of the engine, shared by the files that implement it: engine.cc (public calls),
// loop.cc (the thread: queue, admission, ends), step.cc (one forward pass),
// epochs.cc (tables).
//
// Members are grouped by who may touch them. Everything under `mutex` is short: no call out of the
// engine, no allocation that grows with load, so neither side holds up the other.
#pragma once

#include <condition_variable>
#include <deque>
#include <future>
#include <map>
#include <mutex>
#include <set>
#include <thread>
#include <unordered_set>
#include <utility>

#include "daemon/engine/engine.h"
#include "daemon/engine/reaper.h"
#include "daemon/engine/scheduler.h"
#include "daemon/engine/sequence.h"

namespace chimera {

/// A publish or revoke on its way to the engine thread.
struct TableCommand {
  std::shared_ptr<const RoutingTable> table;
  std::optional<std::string> revoked;  // module; none: publish
  InFlight in_flight = InFlight::kPin;
  Clock::time_point deadline;
  std::promise<Status> answer;
  /// Views of live sequences on `table`, made once however often a waiting publish is retried.
  std::map<Engine::RequestId, Result<RouteViewPtr>> views;
};

/// A terminal event that is sent once the statistics include it.
struct Ending {
  Engine::RequestId id = 0;
  Ticket ticket;
  Status error;    // not ok: on_error
  DoneEvent done;  // else on_done
};

/// A sequence whose logits are there, and the token drawn from them (-1: not finite).
struct Sample {
  Sequence* sequence = nullptr;
  std::span<const float> logits;  // [vocab]
  int32_t token = -1;
  double logprob = 0.0;
};

struct Engine::Impl {
  Impl(std::shared_ptr<const Backbone> backbone, std::shared_ptr<const Tokenizer> tokenizer,
       std::shared_ptr<const RoutingTable> table, EngineOptions options,
       std::unique_ptr<KvCache> cache);
  ~Impl();

  // --- loop.cc, engine thread ----------------------------------------------------------
  void run();
  bool wait_for_work();  // false: stop
  void apply_cancels();
  void expire_deadlines();
  void admit();
  void start(PendingRequest pending);
  template <class Match>
  void end_waiting_if(const std::string& reason, const Match& match);
  void end_exhausted();
  void end_waiting(PendingRequest pending, const std::string& reason);
  void end(Sequence& sequence, const std::string& reason);
  void fail(Sequence& sequence, Status status);
  void sweep();          // removes ended sequences
  void flush_endings();  // statistics first, then the terminal events
  void refresh_snapshot();
  void end_everything();

  // --- step.cc, engine thread ----------------------------------------------------------
  void step();
  Status forward(size_t first, size_t count);
  void take_results(size_t first, size_t count);
  static void draw(Sample& sample);
  void accept(const Sample& sample);
  void take_scores(Sequence& sequence, std::span<const float> logits);
  Status poisoned_status(const Sequence& sequence, const RoutedSegment& routed) const;
  Status bad_logits_status(const Sequence& sequence) const;
  void record_step(double ms);

  // --- epochs.cc -----------------------------------------------------------------------
  Status execute(std::shared_ptr<TableCommand> command);  // any thread; waits for the answer
  void run_table_commands();                              // engine thread, as all below
  std::optional<Status> try_publish(TableCommand& command, bool queue_blocked);
  Status revoke_now(TableCommand& command);
  std::set<uint64_t> epochs_after(TableCommand& command);
  Status blocked_status(TableCommand& command, const std::set<uint64_t>& after) const;
  const Result<RouteViewPtr>& view_on(TableCommand& command, const Sequence& sequence);
  void move(Sequence& sequence, RouteViewPtr view);
  void restart(Sequence& sequence, const Result<RouteViewPtr>& view);
  void set_current(std::shared_ptr<const RoutingTable> next);

  // --- immutable ------------------------------------------------------------------------------
  const std::shared_ptr<const Backbone> backbone;
  const std::shared_ptr<const Tokenizer> tokenizer;  // may be null
  const EngineOptions options;
  const Kernels& kernels;

  // --- shared, under `mutex` ------------------------------------------------------------------
  mutable std::mutex mutex;
  std::condition_variable wake;     // the engine thread
  std::condition_variable drained;  // drain()
  std::deque<PendingRequest> waiting;
  std::unordered_set<RequestId> outstanding;  // queued or live, terminal event not sent
  std::unordered_set<RequestId> cancels;      // subset of `outstanding`
  std::deque<std::shared_ptr<TableCommand>> arrived_commands;
  std::shared_ptr<const RoutingTable> table;  // written by the engine thread only
  RequestId next_id = 1;
  bool draining = false;
  bool stopping = false;
  EngineStats snapshot;  // waiting, percentiles, `rejected` and `router` are filled in by stats()
  RouterStats router_snapshot;
  uint64_t rejected = 0;
  std::vector<EpochInfo> epoch_snapshot;
  std::vector<float> step_ms;  // ring of the last kStepWindow steps
  size_t step_ms_next = 0;

  // --- engine thread only ---------------------------------------------------------------------
  std::unique_ptr<KvCache> cache;
  Scheduler scheduler;
  ThreadPool pool;
  MoeRouter router;
  Workspace workspace;
  EngineStats counters;
  RouterStats router_stats;
  Clock::time_point router_copied;
  std::deque<std::shared_ptr<TableCommand>> commands;
  std::vector<std::unique_ptr<Sequence>> live;  // in order of admission
  std::vector<Ending> endings;
  Batch batch;
  std::vector<Sample> samples;       // of the running step
  std::vector<double> row_logprobs;  // of the score being taken

  Reaper reaper;       // before the thread: it must outlive it
  std::thread thread;  // last: everything above exists when it starts
};

/// Percentiles are over this many steps: about ten seconds of decoding.
inline constexpr size_t kStepWindow = 1000;

}  // namespace chimera
