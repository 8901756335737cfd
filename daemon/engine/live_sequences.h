// LiveSequences: the sequences in progress, in order of admission, and the ends of requests.
//
// A request ends in two moves: end(), fail() and refuse() decide it and fill in its terminal event;
// send_endings() sends the events, once the statistics include them. In between an ended sequence
// stays in place, so that whoever walks over all of them is not disturbed.
//
// Invariants: (1) every request handed in gets exactly one terminal event; (2) a sequence that has
// not ended has a view, and blocks for what it has computed; (3) views are let go through the
// reaper, because the last one may free a module.
//
// Thread safety: engine thread only.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "daemon/engine/engine.h"
#include "daemon/engine/reaper.h"
#include "daemon/engine/scheduling/request_queue.h"
#include "daemon/engine/scheduling/scheduler.h"
#include "daemon/engine/sequence/sequence.h"

namespace chimera {

class LiveSequences {
 public:
  struct Options {
    std::shared_ptr<const Tokenizer> tokenizer = nullptr;  // may be null
    int64_t max_sequences = 1;
    int64_t max_context = 1;
    int64_t prefill_chunk = 1;
    int64_t lone_chunk = 0;  // as Scheduler's
    double step_target_ms = 50.0;
    double row_positions = 1.0;  // as StepPace's
    bool prefix_cache = true;
    bool ngram_speculation = false;
    std::chrono::milliseconds experts_room{0};  // as EngineOptions'
    AdapterStore* adapters =
        nullptr;               // of adapters that need not be in memory; null: there are none
    Doorbell* bell = nullptr;  // rung when some have come
  };
  /// The store, `counters` and `reaper` outlive this.
  LiveSequences(Options options, std::unique_ptr<KvCache> cache, EngineStats* counters,
                Reaper* reaper);

  bool empty() const { return live_.empty(); }
  std::span<const std::unique_ptr<Sequence>> all() const { return live_; }
  Scheduler& scheduler() { return scheduler_; }

  /// Whether a request can start now. With nobody live it can in any case.
  bool has_room_for(const PendingRequest& pending) const;
  /// Starts a request on `table`, or ends it when it cannot run there.
  void admit(PendingRequest pending, const std::shared_ptr<const RoutingTable>& table);
  /// Ends a request that never started.
  void refuse(PendingRequest pending, FinishReason reason, const RoutingTable& table);
  void refuse(PendingRequest pending, Status status);

  /// Asks for adapters that sequences lack, and lets those go on that got theirs. A sequence that
  /// waits has no blocks.
  void fetch_adapters();
  /// Whether all that have not ended wait for adapters.
  bool all_wait_for_adapters() const;

  /// What a failure says something about: the table that the sequence ran on, which counts it
  /// against a canary, or what is the same on every table.
  enum class Fault : uint8_t { kOfTable, kElsewhere };
  /// Ends a sequence; no effect when it ended already, as for fail().
  void end(Sequence& sequence, FinishReason reason);
  void fail(Sequence& sequence, Status status, Fault fault = Fault::kOfTable);

  /// Puts a sequence on a view with the scope of its own: it goes on as if nothing had happened.
  void move(Sequence& sequence, RouteViewPtr view);
  /// Puts a sequence on another view with its keys and values to be computed again from its tokens;
  /// ends it as revoked when `view` is not_found, because nothing that it asked for is left.
  void restart(Sequence& sequence, const Result<RouteViewPtr>& view);
  /// Gives a sequence other rights on the table that it is on.
  void entitle(Sequence& sequence, ModuleRightsPtr rights);
  /// Forgets the keys and values of all prefixes that were cached for later requests.
  void forget_prefixes() { cache_->forget_all(); }
  /// Gives memory of the cache back that was not needed since the call before; true when there may
  /// be more to give back.
  bool trim();

  /// Epochs in use, `current` and `canary` (null: none) among them, with how many sequences are on
  /// each; in order.
  std::vector<EpochInfo> epochs(const RoutingTable& current, const RoutingTable* canary) const;

  /// Sees which sequences must wait until experts of their views are in memory again, or the
  /// average of their bundles is made, before a step; fails those whose cannot be. True when nobody
  /// else is there.
  bool look_at_experts();
  /// As look_at_experts() last saw it.
  bool any_awaits_experts() const;

  bool has_endings() const { return !endings_.empty(); }
  /// Takes out the sequences that ended.
  void sweep();
  /// Puts how many sequences and blocks are in use into the counters.
  void count_occupancy();
  /// Sends the terminal events and returns whose they were. Call sweep() and show the statistics
  /// first.
  std::vector<RequestEnd> send_endings();

 private:
  Clock::time_point experts_retried_;  // the last time that a read of experts was tried again
  /// Fails a sequence whose experts or average of bundles cannot be had.
  void fail_without(Sequence& sequence, const ActiveSet& active, const Status& failure);
  /// Lets a sequence run that has its adapters; else it is paused.
  void let_run(Sequence& sequence);
  void fetch_adapters(Sequence& sequence);
  /// A terminal event to be sent.
  struct Ending {
    RequestId id = 0;
    Ticket ticket;
    Status error;        // not ok: on_error
    DoneEvent done;      // else on_done
    int64_t tokens = 0;  // that it took
  };
  void count(FinishReason reason);
  void time(const Sequence& sequence, FinishReason reason);
  /// Where what became of the sequence is counted while there is a canary; null: nowhere.
  CanarySide* side_of(const Sequence& sequence) const;

  const Options options_;
  EngineStats* const counters_;
  Reaper* const reaper_;
  const std::unique_ptr<KvCache> cache_;
  Scheduler scheduler_;
  std::vector<std::unique_ptr<Sequence>> live_;
  std::vector<Ending> endings_;
};

}  // namespace chimera
