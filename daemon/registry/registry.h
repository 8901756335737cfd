// Registry and control plane: which modules are loaded, how compositions follow one another.
//
// A change that loads (load, blend, apply, rollback) goes manifests -> load (background, low
// priority) -> probe -> table built aside -> state written and synced -> published -> acknowledged.
// Any failure unwinds and the current epoch is untouched: when publishing itself is refused, the
// record written just before is taken back. It is made to the composition that is current when it
// ends, whatever it was when the change began. Changes that load nothing do not wait for those that
// do; change_queue.h says in which order changes are made. A revocation does not queue at all: it
// overtakes waiting publications too, and a load of its module that was asked for before it does
// not bring the module in.
//
// A change that changes nothing is acknowledged with the current epoch and makes no new one.
//
// Thread safety: all methods may be called from any thread; readers are not held up by a running
// change. What waits for the answer of a change may not be called by ask()'s `done`.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/enum_names.h"
#include "daemon/config/config.h"
#include "daemon/engine/engine.h"
#include "daemon/registry/canary.h"
#include "daemon/registry/change_queue.h"
#include "daemon/registry/jobs.h"
#include "daemon/registry/state/store.h"
#include "experts/kinds/module.h"
#include "experts/library/backend.h"

namespace chimera {

class ModuleLoader;
struct FirstEpoch;

/// Where a module stands: in the current table, in the composition but switched off, tried by a
/// part of the new sequences, on its way in, or gone from the composition and kept by sequences on
/// older epochs.
enum class ModuleState : uint8_t { kActive, kDisabled, kCanary, kLoading, kRetiring };
inline constexpr auto kModuleStateNames =
    enum_names<ModuleState>("active", "disabled", "canary", "loading", "retiring");

struct ModuleStatus {
  std::string name, version, domain, description, digest, license;
  std::string path;  // directory; empty while loading and of what is retiring
  Attach attach = Attach::kAppend;
  ModuleKind kind = ModuleKind::kWeights;
  bool enabled = true;
  float bias = 0.0f;
  /// Kind assembly, once it is made: λ in force of its parents, in the order of the recipe.
  std::vector<std::pair<std::string, double>> lambda;
  std::optional<Precision> precision;  // of its experts, once they are made; none: no weights
  std::optional<double> weight{};      // of a bundle, beside others
  int64_t experts = 0;
  uint64_t resident_bytes = 0;
  std::optional<bool> resident{};  // kind lora: whether its adapter is in memory now
  std::optional<int64_t> top_k;    // that it was fitted for
  ModuleState state = ModuleState::kActive;
  std::optional<JobStatus> job;  // of one that is being loaded
  struct Library {
    Isolation isolation = Isolation::kProcess;
    LibraryInfo info;
    LibraryStatus status;
  };
  std::optional<Library> library;  // of a loaded module of kind library
};

enum class ChangeAction : uint8_t {
  kLoad,
  kUnload,
  kRevoke,
  kReplace,
  kRestart,  // the same content loaded again, because its library was shut out
  kEnable,
  kDisable,
  kBias,
  kBlend,  // other coefficients of an assembly's parents
  kPrecision,
  kWeight,  // of a bundle
  kReorder,
  kTopK,
  kAbort  // of a canary
};
inline constexpr auto kChangeActionNames =
    enum_names<ChangeAction>("load", "unload", "revoke", "replace", "restart", "enable", "disable",
                             "bias", "blend", "precision", "weight", "reorder", "top_k", "abort");

struct ChangeItem {
  ChangeAction action = ChangeAction::kLoad;
  std::string module;
  std::string detail;
};

/// What a module gets of recent traffic, and what it would get: parts of the gate's mass, 0 to 1.
struct PredictedShare {
  std::string module;
  double now = 0.0, then = 0.0;
};

struct PlanReport {
  std::vector<ChangeItem> changes;
  int64_t memory_bytes = 0;  // additional resident bytes while both tables live
  /// Of the backbone's experts, what comes into memory once it is current, or leaves it (negative).
  int64_t experts_bytes = 0;
  std::vector<Status> refusals;    // empty: apply would be accepted
  std::string composition;         // digest that would result
  std::vector<std::string> notes;  // RoutingTable::notes of what would result
  /// Where nothing is refused, traffic was sampled and all gates are known: of the backbone and
  /// every module with experts, in the order of what would result, then of those that would go.
  std::vector<PredictedShare> shares;
  int64_t share_samples = 0;  // that these were computed from
};

struct ChangeReport {
  uint64_t epoch = 0;
  std::string composition;
  std::vector<ChangeItem> changes;    // empty: everything was as it was asked for, no new epoch
  std::vector<std::string> notes;     // RoutingTable::notes of what is current now
  std::vector<std::string> disabled;  // modules of the composition that are loaded and not used
  /// False: it took effect, but a restart now would not know it. Of a revocation on a full disk,
  /// which is written as soon as it can be.
  bool durable = true;
  /// Set: nothing changed for the other sequences; this part of the new ones begins on `epoch`.
  std::optional<double> canary = std::nullopt;
};

/// What is known of a module that was revoked, for whoever has to prove it. Keeps nothing of it.
struct RevokedModule {
  std::string name;
  std::string version, digest;  // "" when it was on its way in
  uint64_t bytes = 0;           // that it held
  std::weak_ptr<const Module> module;
  ModuleTraces where;
  Traces before;
  std::optional<PassMark> last_pass;  // that used a module of that name
  uint64_t passes = 0;                // at the time of the acknowledgement
};

/// Who asks for a load, from the most to the least said.
enum class LoadSource : uint8_t {
  kPerson,   // by name: what was revoked or unloaded may come in again
  kArrival,  // it was moved into a watched directory: it may, unless it was revoked
  kScan      // it lies there and nobody says anything: neither
};

struct LoadArgs {
  std::string path;
  std::string name;  // optional: must equal the manifest's when given
  std::optional<bool> enabled;
  std::optional<float> bias;
  std::optional<Precision> precision{};  // of its experts; none: its namesake's
  std::optional<double> weight{};        // of a bundle, above 0; none: its namesake's
  InFlight in_flight = InFlight::kPin;
  LoadSource source = LoadSource::kPerson;
  /// Set: it is not made current; this part of the new sequences, in (0, 1], tries it (canary.h).
  std::optional<double> canary = std::nullopt;
};
struct UnloadArgs {
  std::string name;
};
/// The module that was loaded from directory `path`, whatever its name; not_found when none was.
struct UnloadFromArgs {
  std::string path;
};
struct EditArgs {
  std::string name;
  ModuleEdit edit;
};
/// Other coefficients of the parents of a module of kind assembly. Those that `lambda` does not
/// name keep theirs, the base has what is missing (complete_lambdas).
struct BlendArgs {
  std::string name;
  std::map<std::string, double> lambda;
  InFlight in_flight = InFlight::kPin;
};
struct ApplyArgs {
  CompositionSpec spec;
  InFlight in_flight = InFlight::kPin;
  std::function<Status()> check;  // asked first, on the thread that loads; may be empty
};
/// To the composition of `epoch`; without one, to the latest recorded one that is older than the
/// current one and differs from it, so that repeated calls walk further and further back (a
/// rollback stands at the place of what it went back to). Refused when one of its modules is gone
/// or has changed on disk, or was revoked and not loaded again since.
struct RollbackArgs {
  std::optional<uint64_t> epoch;
};
/// Makes what the canary tries the current composition.
struct PromoteArgs {};
using ChangeRequest = std::variant<LoadArgs, UnloadArgs, UnloadFromArgs, EditArgs, BlendArgs,
                                   ApplyArgs, RollbackArgs, PromoteArgs>;

/// Who asks for a change, as far as the registry needs to know.
struct Asker {
  uint64_t turn = 0;  // of Registry::take_turn(); 0: takes one
  /// Asked when the change begins, and between the steps of one that loads, on threads of the
  /// registry: a Status that is not ok gives the change up with that answer. May be empty.
  std::function<Status()> still_wanted = nullptr;
  /// Told how far a change that loads has come (Job). May be empty.
  std::function<void(const JobStatus&)> on_progress = nullptr;
};

class Registry {
 public:
  /// Pointers are borrowed: all of them outlive the registry.
  struct Options {
    ModuleLoader* loader = nullptr;
    StateStore* store = nullptr;
    Engine* engine = nullptr;  // on the table of `first`
    /// How long a change waits for sequences on old epochs before it is refused.
    std::chrono::milliseconds publish_timeout{30'000};
    CanaryBounds canary_bounds = {};
  };
  /// `first` as first_epoch() gave it, its table handed on to the engine.
  Registry(Options options, FirstEpoch first);
  ~Registry();

  /// Ends the running changes (a publication that waits is given up) and refuses further ones with
  /// `unavailable`; all are answered when it returns. Before the engine is destroyed.
  void stop();

  /// The place of what is asked for now among everything that is. For callers that hand requests
  /// over to threads: revocations count by it.
  uint64_t take_turn();
  /// Asks for a change; its order among others is that of these calls. Blocks for as long as the
  /// manifests of what is to be loaded take to be read. `done` is called once, on a thread of the
  /// registry, or on this one when the change is refused at once.
  /// Gives the id of the job that a change is which loads, else "".
  std::string ask(ChangeRequest request, Asker asker,
                  std::function<void(Result<ChangeReport>)> done);
  /// ask(), and waits for the answer.
  Result<ChangeReport> change(ChangeRequest request);

  Result<ChangeReport> load(const LoadArgs& args) { return change(args); }
  Result<ChangeReport> unload(const std::string& name) { return change(UnloadArgs{name}); }
  Result<ChangeReport> unload_from(const std::string& path) { return change(UnloadFromArgs{path}); }
  Result<ChangeReport> set_enabled(const std::string& name, bool enabled) {
    return change(EditArgs{name, {enabled, std::nullopt}});
  }
  Result<ChangeReport> set_bias(const std::string& name, float value) {
    return change(EditArgs{name, {std::nullopt, value}});
  }
  Result<ChangeReport> blend(const std::string& name, const std::map<std::string, double>& lambda) {
    return change(BlendArgs{name, lambda});
  }
  Result<ChangeReport> apply(const CompositionSpec& spec, InFlight in_flight) {
    return change(ApplyArgs{spec, in_flight, nullptr});
  }
  Result<ChangeReport> rollback(std::optional<uint64_t> epoch) {
    return change(RollbackArgs{epoch});
  }

  /// Ends a job as `cancelled`: at once while it waits, else at its next step. False when there is
  /// none of that id in progress.
  bool cancel(const std::string& job);
  /// How the last jobs ended, oldest first, and those in progress.
  std::vector<JobStatus> jobs() const;

  /// Waits for nobody but a commit in progress, and takes effect even when its record cannot be
  /// written (ChangeReport::durable). `turn` as Asker's.
  /// `revoked` is filled in when it is not null.
  Result<ChangeReport> revoke(const std::string& name, uint64_t turn = 0,
                              RevokedModule* revoked = nullptr);
  /// Makes the canary's composition the current one, as an epoch of its own; failed_precondition
  /// when there is none. Sequences of the canary move to it, the others finish where they are.
  Result<ChangeReport> promote() { return change(PromoteArgs{}); }
  /// Takes the canary away and moves its sequences to the current epoch. When it returns no forward
  /// pass touches what was tried. Waits for nobody but a commit in progress.
  Result<ChangeReport> abort_canary();
  /// The one there is, and the last that ended since the start of the daemon.
  std::optional<CanaryStatus> canary() const;
  std::optional<CanaryStatus> last_canary() const;

  /// What apply() of `spec` would change, need and be refused for. Loads and probes all of it,
  /// aside, and keeps it for a while when nothing is refused, for that apply (kept_modules.h).
  PlanReport plan(const CompositionSpec& spec);
  /// The same as far as manifests and headers tell, within milliseconds, and beside everything
  /// else: digests, numbers and probes are not looked at.
  PlanReport outline(const CompositionSpec& spec) const;

  Composition composition() const;
  /// Active and disabled ones in order, then those being loaded, then those that sequences on
  /// older epochs still use.
  std::vector<ModuleStatus> modules() const;
  std::vector<EpochRecord> history() const;
  LibraryStats library_stats() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace chimera
