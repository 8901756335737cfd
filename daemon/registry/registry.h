// Registry and control plane: which modules are loaded, how compositions follow one another.
//
// All changes go through one serial worker: spec -> manifests -> load (background, low priority)
// -> probe -> table built aside -> state written and synced -> published -> acknowledged. Any
// failure unwinds and the current epoch is untouched: when publishing itself is refused, the
// record written just before is taken back. Only a revocation does not queue: it overtakes loads
// and waiting publications, and a change that was prepared before it is refused.
//
// A change that changes nothing is acknowledged with the current epoch and makes no new one.
//
// Thread safety: all methods may be called from any thread; changes are serialised, readers are
// not held up by a running change.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/enum_names.h"
#include "daemon/config/config.h"
#include "daemon/engine/engine.h"
#include "daemon/registry/state_store.h"
#include "experts/kinds/module.h"
#include "experts/library/backend.h"

namespace chimera {

class ModuleLoader;
struct FirstEpoch;

/// Where a module stands: in the current table, in the composition but switched off, on its way in,
/// or gone from the composition and kept by sequences on older epochs.
enum class ModuleState : uint8_t { kActive, kDisabled, kLoading, kRetiring };
inline constexpr auto kModuleStateNames =
    enum_names<ModuleState>("active", "disabled", "loading", "retiring");

struct ModuleStatus {
  std::string name, version, domain, description, digest, license;
  Attach attach = Attach::kAppend;
  ModuleKind kind = ModuleKind::kWeights;
  bool enabled = true;
  float bias = 0.0f;
  int64_t experts = 0;
  uint64_t resident_bytes = 0;
  std::optional<int64_t> top_k;  // that it was fitted for
  ModuleState state = ModuleState::kActive;
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
  kReorder,
  kTopK
};
inline constexpr auto kChangeActionNames =
    enum_names<ChangeAction>("load", "unload", "revoke", "replace", "restart", "enable", "disable",
                             "bias", "reorder", "top_k");

struct ChangeItem {
  ChangeAction action = ChangeAction::kLoad;
  std::string module;
  std::string detail;
};

struct PlanReport {
  std::vector<ChangeItem> changes;
  int64_t memory_bytes = 0;        // additional resident bytes while both tables live
  std::vector<Status> refusals;    // empty: apply would be accepted
  std::string composition;         // digest that would result
  std::vector<std::string> notes;  // RoutingTable::notes of what would result
};

struct ChangeReport {
  uint64_t epoch = 0;
  std::string composition;
  std::vector<ChangeItem> changes;    // empty: everything was as it was asked for, no new epoch
  std::vector<std::string> notes;     // RoutingTable::notes of what is current now
  std::vector<std::string> disabled;  // modules of the composition that are loaded and not used
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
  InFlight in_flight = InFlight::kPin;
  LoadSource source = LoadSource::kPerson;
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
  };
  /// `first` as first_epoch() gave it, its table handed on to the engine.
  Registry(Options options, FirstEpoch first);
  ~Registry();

  /// Ends the running change (a publication that waits is given up) and refuses further ones with
  /// `unavailable`. Before the engine is destroyed.
  void stop();

  Result<ChangeReport> load(const LoadArgs& args);
  Result<ChangeReport> unload(const std::string& name);
  /// Unloads the module that was loaded from directory `path`, whatever its name; not_found when
  /// none was.
  Result<ChangeReport> unload_from(const std::string& path);
  Result<ChangeReport> revoke(const std::string& name);
  Result<ChangeReport> set_enabled(const std::string& name, bool enabled);
  Result<ChangeReport> set_bias(const std::string& name, float value);
  PlanReport plan(const CompositionSpec& spec);
  Result<ChangeReport> apply(const CompositionSpec& spec, InFlight in_flight);
  /// To the composition of `epoch`; without one, to the latest recorded one that is older than the
  /// current one and differs from it, so that repeated calls walk further and further back (a
  /// rollback stands at the place of what it went back to). Refused when one of its modules is gone
  /// or has changed on disk, or was revoked and not loaded again since.
  Result<ChangeReport> rollback(std::optional<uint64_t> epoch);

  Composition composition() const;
  /// Active and disabled ones in order, then the one being loaded, then those that sequences on
  /// older epochs still use.
  std::vector<ModuleStatus> modules() const;
  std::vector<EpochRecord> history() const;
  LibraryStats library_stats() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace chimera
