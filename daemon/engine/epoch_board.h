// EpochBoard: the current routing table, and how the next one follows it.
//
// A publish or revoke is put on the board by whoever wants it and carried out by the engine thread
// between two steps. Every live sequence ends up in one of three ways: *moved* to the new table
// when its scope is the same there (its outputs cannot differ), *pinned* to the table it is on, or
// *restarted* on the new one.
//
// A canary is a second table on which a part of the new sequences begins. Whoever publishes or
// revokes ends it: what comes next is current for everybody.
//
// The limit of live epochs is one of memory: tables of the same modules share what they hold (their
// layout) and count once, so that biases may change as often as one likes.
//
// Invariants: (1) epochs strictly increase; (2) publishes keep their order, a revocation overtakes
// those that wait; (3) once a command is acknowledged, neither the board nor a sequence that it
// moved holds a reference to the tables it replaced.
//
// Thread safety: methods of the first group may be called from any thread, those of the second from
// the engine thread. The mutex is held for exchanges of pointers and for what with_table() is
// given; the queue's mutex may be taken inside, never the other way round.
#pragma once

#include <chrono>
#include <deque>
#include <future>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/threads/mutex.h"
#include "daemon/engine/engine.h"
#include "daemon/engine/live_sequences.h"
#include "daemon/engine/reaper.h"
#include "daemon/engine/scheduling/doorbell.h"
#include "daemon/engine/scheduling/request_queue.h"

namespace chimera {

class EpochBoard {
 public:
  /// `bell` and `reaper` outlive the board.
  EpochBoard(std::shared_ptr<const RoutingTable> first, int64_t max_live_epochs, Doorbell* bell,
             Reaper* reaper);

  // --- any thread -----------------------------------------------------------------------------
  std::shared_ptr<const RoutingTable> table() const;
  /// Calls `use` with the current table, which does not change meanwhile. Without a reference that
  /// could outlive a revocation.
  template <class Use>
  auto with_table(const Use& use) const {
    const MutexLock lock(mutex_);
    return use(std::as_const(*table_));
  }
  /// The same with the table on which a request of that lot would begin now.
  template <class Use>
  auto with_table(uint64_t lot, const Use& use) const {
    const MutexLock lock(mutex_);
    const bool canary = canary_table_ != nullptr && drawn_for_canary(lot, canary_fraction_);
    return use(std::as_const(canary ? *canary_table_ : *table_));
  }
  /// Epochs in use as of the last step.
  std::vector<EpochInfo> epochs() const;
  /// As Engine::publish and Engine::revoke: they wait until the engine thread carried them out.
  Status publish(std::shared_ptr<const RoutingTable> table, InFlight in_flight,
                 std::chrono::milliseconds timeout);
  Status revoke(const std::string& module, std::shared_ptr<const RoutingTable> table);
  /// As of Engine.
  Status publish_canary(std::shared_ptr<const RoutingTable> table, double fraction,
                        std::chrono::milliseconds timeout);
  Status withdraw_canary();

  // --- engine thread --------------------------------------------------------------------------
  const std::shared_ptr<const RoutingTable>& current() const { return current_; }
  /// Null when there is none.
  const std::shared_ptr<const RoutingTable>& canary() const { return canary_; }
  /// Where a request of that lot begins.
  const std::shared_ptr<const RoutingTable>& table_for(uint64_t lot) const {
    return canary_ != nullptr && drawn_for_canary(lot, fraction_) ? canary_ : current_;
  }
  /// Nothing is to be carried out.
  bool idle() const;
  /// Carries out what can be. True when something was: then acknowledge() must follow, after the
  /// terminal events that it caused were sent and its effects shown.
  bool carry_out(LiveSequences& live, RequestQueue& queue);
  void acknowledge();
  /// What a waiting publish would make of a request counts no more: its rights have changed.
  void forget_views(RequestId id);
  void show(std::vector<EpochInfo> epochs);
  /// Refuses what is on the board, and everything from now on, as unavailable.
  void close();

 private:
  /// A change of the tables on its way.
  struct Command {
    enum class Kind : uint8_t { kPublish, kRevoke, kCanary, kWithdraw };
    bool overtakes() const { return kind == Kind::kRevoke || kind == Kind::kWithdraw; }
    /// The view that `sequence` would have on `table`; not_found when none of the modules it asked
    /// for is there.
    const Result<RouteViewPtr>& view_for(const Sequence& sequence);
    /// Whether the outputs of `sequence` are the same on `table`.
    bool same_scope(const Sequence& sequence);
    /// The view to move `sequence` to. REQUIRES: same_scope(sequence).
    RouteViewPtr moved_view(const Sequence& sequence);

    Kind kind = Kind::kPublish;
    std::shared_ptr<const RoutingTable> table;
    std::string revoked;    // kRevoke: module
    double fraction = 0.0;  // kCanary
    InFlight in_flight = InFlight::kPin;
    std::chrono::steady_clock::time_point deadline;
    std::promise<Status> answer;
    /// Views of live sequences on `table`, made once however often a waiting publish is retried,
    /// and one for all that may use the same modules.
    std::map<RequestId, Result<RouteViewPtr>> views;
    std::vector<RouteViewPtr> made;
  };
  using CommandPtr = std::shared_ptr<Command>;

  Status execute(CommandPtr command);
  void collect_arrived();
  /// nullopt: must wait, for an epoch or behind another publish.
  std::optional<Status> try_publish(Command& command, LiveSequences& live, bool queue_blocked);
  /// Whether the epoch of a table may follow those there are.
  Status check_epoch(const Command& command) const;
  Status revoke_now(Command& command, LiveSequences& live, RequestQueue& queue);
  Status withdraw_now(Command& command, LiveSequences& live);
  /// Layouts in use if the command were carried out now, each with the oldest epoch that uses it.
  using Layouts = std::map<const RoutingLayout*, uint64_t>;
  Layouts layouts_after(Command& command, const LiveSequences& live) const;
  Status blocked_status(const Command& command, const LiveSequences& live,
                        const Layouts& after) const;
  void set_current(std::shared_ptr<const RoutingTable> next);
  void set_canary(std::shared_ptr<const RoutingTable> next, double fraction);

  const int64_t max_live_epochs_;
  Doorbell* const bell_;
  Reaper* const reaper_;

  mutable Mutex mutex_;
  std::shared_ptr<const RoutingTable> table_ GUARDED_BY(mutex_);
  std::shared_ptr<const RoutingTable> canary_table_ GUARDED_BY(mutex_);
  double canary_fraction_ GUARDED_BY(mutex_) = 0.0;
  std::vector<CommandPtr> arrived_ GUARDED_BY(mutex_);
  std::vector<EpochInfo> epochs_ GUARDED_BY(mutex_);
  bool closed_ GUARDED_BY(mutex_) = false;

  // Engine thread only.
  std::shared_ptr<const RoutingTable> current_;  // is table_, to be read without the mutex
  std::shared_ptr<const RoutingTable> canary_;   // is canary_table_, likewise
  double fraction_ = 0.0;
  std::deque<CommandPtr> waiting_;
  std::vector<std::pair<CommandPtr, Status>> answers_;
};

}  // namespace chimera
