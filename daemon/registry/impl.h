// Inside of Registry, shared by registry.cc (what is asked for, and by whom it is done), edits.cc
// and loads.cc (the changes), plan.cc and commit.cc (how one becomes durable and current).
//
// Three locks. `commit` is held while a composition follows another: written, published, taken as
// current. Preparing a change (loading, probing) happens outside of it, so a revocation only waits
// for a commit, and a waiting commit gives way to it: it takes its publication back and tries again
// once the revocation, which holds `revoke` all the while, is done. The abort of a canary takes
// both as a revocation does. `state` guards the current composition for readers and is held for
// copies only.
//
// Every change is made to the composition that is current when it is committed, whatever it was
// when the change was prepared.
//
// Thread safety: the methods' own comments; changes that load run on `loads`, the others on
// `edits`, revocations on their callers' threads, readers on any.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/threads/mutex.h"
#include "base/threads/repeater.h"
#include "base/threads/worker_pool.h"
#include "daemon/registry/composer.h"
#include "daemon/registry/first_epoch.h"
#include "daemon/registry/module_loader.h"
#include "daemon/registry/preparation.h"
#include "daemon/registry/registry.h"

namespace chimera {

struct Registry::Impl {
  /// Modules loaded side by side. One hashes on one CPU, at 0.3 to 2 GB/s; four of them are as fast
  /// as a disk, and leave the streams of a small machine theirs (background.h).
  static constexpr int kLoadsAtOnce = 4;

  Impl(Options o, FirstEpoch first);

  /// A change in progress.
  struct Running {
    std::shared_ptr<const Change> change;
    std::function<Status()> asker_wants;  // Asker::still_wanted
    ModuleEdit edit = {};                 // of one that edits
    std::shared_ptr<Job> job = nullptr;   // of one that loads
  };
  /// The job of a change that loads.
  std::shared_ptr<Job> make_job(const ChangeRequest& request, const Running& running,
                                std::function<void(const JobStatus&)> on_progress);
  /// Not ok when the change is to be given up: the daemon stops, its asker has gone, or its module
  /// was revoked meanwhile.
  Status still_wanted(const Running& running) const;
  /// The same, or its job was cancelled.
  Status wanted(const Running& running) const {
    return running.job ? running.job->still_wanted() : still_wanted(running);
  }

  struct Current {
    uint64_t epoch = 0;
    LoadedComposition loaded;
    uint64_t place = 0;  // in the history; EpochRecord::place
    /// What requests use which name no module: kept in memory, as a request needs it.
    std::shared_ptr<const ActiveSet> used = nullptr;
  };
  Current current() const EXCLUDES(state_mutex);
  static std::shared_ptr<const ActiveSet> used_of(const RoutingTable& table) {
    return table.layout()->active(table.layout()->unnamed());
  }
  /// Bytes of them that would come into memory, or leave it (negative), were `next` current.
  int64_t experts_change(const RoutingTable& next) const;
  bool is_loaded(const std::string& name) const EXCLUDES(state_mutex);
  /// Changes the current composition in place, or says why it cannot.
  using Edit = std::function<Status(LoadedComposition* next)>;
  /// One change of a commit.
  struct Proposal {
    const Running& running;
    Edit edit;
    bool promotes = false;  // the canary
  };
  using Answers = std::vector<Result<ChangeReport>>;
  /// Makes what the proposals do to the current composition current, one after another and each as
  /// an epoch of its own, with one write and one publication for all. One that is refused changes
  /// nothing for the others; when writing or publishing fails, none has changed anything. An edit
  /// may run several times. When this returns, they hold no module. `origin` as EpochRecord's.
  Answers commit(std::span<const Proposal> proposals, InFlight in_flight, uint64_t origin = 0)
      EXCLUDES(commit_mutex, revoke_mutex);
  Result<ChangeReport> commit(const Running& running, const Edit& edit, InFlight in_flight,
                              uint64_t origin = 0, bool promotes = false)
      EXCLUDES(commit_mutex, revoke_mutex) {
    const Proposal one{running, edit, promotes};
    return std::move(commit({&one, 1}, in_flight, origin).front());
  }
  /// Runs on the caller's thread and overtakes everything else.
  Result<ChangeReport> revoke(const std::string& name, uint64_t turn, RevokedModule* revoked)
      EXCLUDES(commit_mutex, revoke_mutex);
  /// What revoke() does first: out of the routing table, the engine and the record.
  Result<ChangeReport> take_out(const std::string& name, uint64_t turn, RevokedModule* revoked)
      EXCLUDES(commit_mutex, revoke_mutex);
  /// Looks at the module of that name as it is now; no effect when `out` knows it.
  void trace(const std::string& name, RevokedModule* out) const EXCLUDES(state_mutex);

  // Canaries (canary.cc).
  struct CanaryArgs {
    std::string module, version, digest;
    double fraction = 0.0;
  };
  /// As commit(), of an edit that a part of the new sequences tries.
  Result<ChangeReport> begin_canary(const Running& running, const Edit& edit,
                                    const CanaryArgs& args) EXCLUDES(commit_mutex, revoke_mutex);
  /// `epoch`: of the canary that is meant; none: whichever there is.
  Result<ChangeReport> abort_canary(const std::string& reason, std::optional<uint64_t> epoch)
      EXCLUDES(commit_mutex, revoke_mutex);
  Result<ChangeReport> make(const PromoteArgs& args, const Running& running);
  /// Aborts it beyond a bound; true when there is none to look at any more.
  bool look_at_canary();
  bool tried_by_canary(const std::string& name) const EXCLUDES(state_mutex);
  /// failed_precondition while there is a canary.
  Status no_change_beside_canary() const EXCLUDES(state_mutex);

  Result<ChangeReport> make(const UnloadArgs& args, const Running& running);
  Result<ChangeReport> make(const UnloadFromArgs& args, const Running& running);

  using End = std::function<void(Result<ChangeReport>)>;
  /// Begins a change whose turn has come.
  template <class Args>
  void start(const Args& args, const Running& running, const End& end) {
    // One that was cancelled only has to be told so, and need not wait for a place to load in.
    const bool reads = running.job && !running.job->progress()->given_up();
    (reads ? loads : edits).post([this, args, running] { return make(args, running); }, end);
  }
  /// Edits are made together with those that came while others were made, in the order of these
  /// calls.
  void start(const EditArgs& args, const Running& running, const End& end) EXCLUDES(edits_mutex);
  struct WaitingEdit {
    Running running;
    EditArgs args;
    End end;
  };
  void post_edits() EXCLUDES(edits_mutex);
  /// The first of those that wait, and all after it up to one that cannot be made with them: what
  /// switches a module on or off may have to wait for a free epoch, and biases never do.
  std::vector<WaitingEdit> take_edits(bool* more) EXCLUDES(edits_mutex);
  Answers make(std::span<const WaitingEdit> waiting);

  /// The loader, for a daemon that serves already: in the background (background.h).
  Result<std::shared_ptr<const Module>> load_beside_streams(const WantedModule& wanted, Job* job);
  /// The same of several, side by side; in their order. Current ones are not kept alive.
  std::vector<Result<FoundModule>> find_modules(const std::vector<WantedModule>& wanted,
                                                const CurrentModules& current, Job* job);
  /// Loads what `spec` wishes. Refusals are collected; entries that failed are left out.
  Preparation prepare(const CompositionSpec& spec, Job* job, std::vector<Status>* refusals);
  Result<Preparation> prepare(const EpochRecord& record, Job* job);
  /// commit() of a whole composition.
  Result<ChangeReport> put_in_place(const Running& running, const Preparation& prepared,
                                    InFlight in_flight, uint64_t origin = 0);
  Result<EpochRecord> find_record(std::optional<uint64_t> epoch) const;
  /// Whether a module may come in if no person asks for it.
  static Status check_unasked(const LoadedComposition& now, const Manifest& manifest,
                              const LoadArgs& args);
  Result<ChangeReport> make(const LoadArgs& args, const Running& running);
  Result<ChangeReport> make(const BlendArgs& args, const Running& running);
  Result<ChangeReport> make(const ApplyArgs& args, const Running& running);
  Result<ChangeReport> make(const RollbackArgs& args, const Running& running);
  PlanReport plan(const CompositionSpec& spec);
  /// `fresh`: what it loaded and is not current.
  PlanReport plan(const CompositionSpec& spec, KeptModules::Modules* fresh);
  PlanReport outline(const CompositionSpec& spec) const;
  /// Fills in the shares of a report of which nothing is refused, were `next` current. Modules may
  /// be known by their gates alone.
  void predict_shares(const LoadedComposition& next, const GateSamples::Copy& samples,
                      PlanReport* report) const;

  const Options options;

  Mutex revoke_mutex;  // before commit_mutex
  Mutex commit_mutex;
  std::atomic<int> revokes_waiting{0};
  std::atomic<bool> stopping{false};

  mutable Mutex state_mutex;
  Current now GUARDED_BY(state_mutex);
  std::vector<std::weak_ptr<const Module>> retiring GUARDED_BY(state_mutex);
  struct Canary {
    CanaryStatus status;                              // without counts
    LoadedComposition loaded;                         // the current one with what is tried
    std::shared_ptr<const ActiveSet> used = nullptr;  // as Current's
  };
  std::optional<Canary> canary GUARDED_BY(state_mutex);
  std::optional<CanaryStatus> last_canary GUARDED_BY(state_mutex);

  std::atomic<uint64_t> turns{0};
  ChangeQueue queue;
  Jobs jobs;
  Mutex edits_mutex;
  std::vector<WaitingEdit> waiting_edits GUARDED_BY(edits_mutex);

  // Last: what runs on them uses all of the above. `loads` and `edits` make changes, `loaders` load
  // the modules of those that have several.
  WorkerPool loaders{kLoadsAtOnce};
  WorkerPool loads{kLoadsAtOnce}, edits{1};
  /// A revocation does not wait for a disk: it takes effect, and its record follows when it can.
  Repeater late_record{"chimera-record", std::chrono::seconds(1), [this] { return record_late(); }};
  uint64_t abort_refused = 0;  // epoch of the canary that the guard could not abort; its thread's
  Repeater canary_guard{"chimera-canary", std::chrono::milliseconds(100),
                        [this] { return look_at_canary(); }};

 private:
  /// How long a change waits for its publication.
  struct Patience {
    std::chrono::steady_clock::time_point deadline;
    bool gave_way = false;  // out: to a revocation
    Status missing = {};    // why something could not be had, when that was tried
    /// Out: what experts are to be read for and averages of bundles made first, without a lock;
    /// then nothing has changed.
    std::vector<std::shared_ptr<const ActiveSet>> to_wait = {};
  };
  /// Not ok when something that `used` needs cannot be had now.
  static Status check_there(const std::shared_ptr<const ActiveSet>& used, Patience* patience);
  /// Waits for what an attempt asked for; true when there was something.
  static bool wait_for(Patience* patience, std::vector<std::shared_ptr<const ActiveSet>>* kept,
                       Status* failure);
  /// What a commit has come to.
  struct Draft {
    uint64_t basis = 0;  // epoch of what is current
    uint64_t epoch = 0;  // of `loaded`
    LoadedComposition loaded;
    std::shared_ptr<const RoutingTable> table = nullptr;  // of the last record
    std::vector<EpochRecord> records = {};
    std::shared_ptr<const ActiveSet> used = nullptr;  // as Current's
  };
  /// Adds what `proposal` does; the answer if all of it becomes current.
  Result<ChangeReport> add(const Proposal& proposal, uint64_t origin, Draft* draft,
                           Patience* patience) const;
  /// Writes the records, calls `publish`, takes the records back if that fails.
  Status persist_and(std::vector<EpochRecord> records, const std::function<Status()>& publish)
      REQUIRES(commit_mutex);
  /// Writes what is current if the state directory does not know it yet. To be called before any
  /// later epoch is handed out: records are written in the order of their epochs.
  Status record_current() REQUIRES(commit_mutex);
  /// The same for `late_record`: whether nothing is left to write.
  bool record_late() EXCLUDES(commit_mutex);
  using Publish = std::function<Status(std::chrono::milliseconds attempt)>;
  Status publish_patiently(const std::function<Status()>& wanted_by_any, const Publish& publish,
                           Patience* patience);
  Result<ChangeReport> try_canary(const Running& running, const Edit& edit, const CanaryArgs& args,
                                  Patience* patience) EXCLUDES(commit_mutex);
  /// Takes it out of the books and says what it was; nothing when there is none.
  std::optional<CanaryStatus> end_canary(CanaryOutcome outcome, const CanaryCounts& counts,
                                         const std::string& reason) EXCLUDES(state_mutex);
  Status wanted_by_any(std::span<const Proposal> proposals) const;
  Answers try_commit(std::span<const Proposal> proposals, InFlight in_flight, uint64_t origin,
                     Patience* patience) EXCLUDES(commit_mutex);
  /// Puts those of `left` that are not current on the list of the retiring.
  void note_retiring(const std::vector<std::shared_ptr<const Module>>& left) REQUIRES(state_mutex);
  void make_current(Current next) EXCLUDES(state_mutex);
};

/// Counts revocations, and what gives way as little, that want the commit lock.
class Announcement {
 public:
  explicit Announcement(std::atomic<int>& count) : count_(count) { ++count_; }
  ~Announcement() { --count_; }
  Announcement(const Announcement&) = delete;
  Announcement& operator=(const Announcement&) = delete;

 private:
  std::atomic<int>& count_;
};

/// One warning each.
void log_notes(const std::vector<std::string>& notes);
/// "2024-01-02T03:04:05Z"
std::string utc_now();
/// One Status of several: the first one's code and hint, all messages, one per line.
Status join(const std::vector<Status>& refusals);

}  // namespace chimera
