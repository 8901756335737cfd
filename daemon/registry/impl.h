// Inside of Registry, shared by registry.cc (the changes) and commit.cc (how one becomes durable
// and current).
//
// Two locks. `commit` is held while a composition follows another: written, published, taken as
// current. Preparing a change (loading, probing) happens outside of it, so a revocation only waits
// for a commit, and a waiting commit gives way to it. `state` guards the current composition for
// readers and is held for copies only.
//
// Thread safety: the methods' own comments; changes run on `worker`, revocations on their callers'
// threads, readers on any.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/threads/mutex.h"
#include "base/threads/serial_worker.h"
#include "daemon/registry/composer.h"
#include "daemon/registry/first_epoch.h"
#include "daemon/registry/module_loader.h"
#include "daemon/registry/preparation.h"
#include "daemon/registry/registry.h"

namespace chimera {

struct Registry::Impl {
  Impl(Options o, FirstEpoch first);

  struct Current {
    uint64_t epoch = 0;
    LoadedComposition loaded;
    uint64_t place = 0;  // in the history; EpochRecord::place
  };
  Current current() const EXCLUDES(state_mutex);
  /// What a change is prepared on. Keeps no module alive.
  struct Basis {
    uint64_t epoch = 0;
    Composition composition;
    CurrentModules modules;
    // As LoadedComposition's.
    std::vector<std::string> revoked;
    std::map<std::string, std::string> set_aside;
  };
  Basis basis() const;

  /// Changes the current composition in place, or says why it cannot.
  using Edit = std::function<Status(LoadedComposition* next)>;
  /// Makes what `edit` does to the current composition current, or changes nothing. Refused as
  /// overtaken when the epoch is not `basis` any more. When this returns, it holds no module.
  /// `origin` as EpochRecord's.
  Result<ChangeReport> commit(uint64_t basis, const Edit& edit, InFlight in_flight,
                              uint64_t origin = 0) EXCLUDES(commit_mutex);
  /// Runs on the caller's thread and overtakes everything else.
  Result<ChangeReport> revoke(const std::string& name) EXCLUDES(commit_mutex);

  /// The loader, for a daemon that serves already: in the background (background.h).
  Result<std::shared_ptr<const Module>> load_beside_streams(const std::string& dir);
  /// Loads what `spec` wishes. Refusals are collected; entries that failed are left out.
  Preparation prepare(Basis basis, const CompositionSpec& spec, std::vector<Status>* refusals);
  Result<Preparation> prepare(Basis basis, const EpochRecord& record);
  /// commit() of a whole composition.
  Result<ChangeReport> put_in_place(uint64_t basis, const Preparation& prepared, InFlight in_flight,
                                    uint64_t origin = 0);
  Result<EpochRecord> find_record(std::optional<uint64_t> epoch) const;
  /// Whether the module in `dir` may come in without a person who asks for it.
  static Status check_unasked(const Basis& from, const std::string& dir, LoadSource source);
  Result<ChangeReport> load(const LoadArgs& args);
  PlanReport plan(const CompositionSpec& spec);

  const Options options;

  Mutex commit_mutex;
  std::atomic<int> revokes_waiting{0};
  std::atomic<bool> stopping{false};

  mutable Mutex state_mutex;
  Current now GUARDED_BY(state_mutex);
  std::vector<std::weak_ptr<const Module>> retiring GUARDED_BY(state_mutex);

  SerialWorker worker;  // last: its jobs use all of the above

 private:
  Result<std::shared_ptr<const RoutingTable>> next_table(const LoadedComposition& next,
                                                         uint64_t* epoch) const;
  /// Writes the record, calls `publish`, takes the record back if that fails.
  Status persist_and(const LoadedComposition& next, uint64_t epoch, uint64_t origin,
                     const std::function<Status()>& publish);
  Status publish_patiently(const std::shared_ptr<const RoutingTable>& table, InFlight in_flight);
  /// Puts those of `left` that are not current on the list of the retiring.
  void note_retiring(const std::vector<std::shared_ptr<const Module>>& left) REQUIRES(state_mutex);
  ChangeReport make_current(Current next, const std::string& digest,
                            std::vector<ChangeItem> changes) EXCLUDES(state_mutex);
};

/// One warning each.
void log_notes(const std::vector<std::string>& notes);
/// "2024-01-02T03:04:05Z"
std::string utc_now();
/// One Status of several: the first one's code and hint, all messages, one per line.
Status join(const std::vector<Status>& refusals);

}  // namespace chimera
