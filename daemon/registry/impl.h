// Inside of Registry, shared by registry.cc (the changes), commit.cc (how one becomes
// durable and current) and start.cc (the first table).
//
// Two locks. `commit` is held while a composition follows another: written, published, taken as
// current. Preparing a change (loading, probing) happens outside of it, so a revocation only waits
// for a commit, and a waiting commit gives way to it. `state` guards the current composition for
// readers and is held for copies only.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/threads/serial_worker.h"
#include "daemon/registry/composer.h"
#include "daemon/registry/module_loader.h"
#include "daemon/registry/registry.h"

namespace chimera {

struct Registry::Impl {
  explicit Impl(Options o);

  struct Current {
    uint64_t epoch = 0;
    LoadedComposition loaded;
  };
  Current current() const;

  /// Makes `next` current after `from`, or changes nothing. `next` is consumed: when this returns,
  /// the caller holds no module that left.
  Result<ChangeReport> commit(const Current& from, LoadedComposition next, InFlight in_flight);
  /// Runs on the caller's thread and overtakes everything else.
  Result<ChangeReport> revoke(const std::string& name);

  /// The loader, for a daemon that serves already: in the background (background.h).
  Result<std::shared_ptr<const Module>> load_beside_streams(const std::string& dir);
  /// Loads what `spec` wishes. Refusals are collected; entries that failed are left out.
  LoadedComposition prepare(const CompositionSpec& spec, std::vector<Status>* refusals);
  Result<LoadedComposition> prepare(const EpochRecord& record);
  Result<EpochRecord> find_record(std::optional<uint64_t> epoch) const;
  Result<ChangeReport> load(const LoadArgs& args);
  PlanReport plan(const CompositionSpec& spec);

  LoadedComposition restore(const Composition& last);
  LoadedComposition first(const CompositionSpec& deployment);
  /// Adds a module if the result still is a valid table; warns otherwise.
  void try_add(LoadedComposition* target, Result<std::shared_ptr<const Module>> module,
               const std::string& path, bool enabled, float bias);

  const Options options;
  const RoutingTableBuilder builder;
  ModuleLoader loader;
  Engine* engine = nullptr;

  std::mutex commit_mutex;
  std::atomic<int> revokes_waiting{0};
  std::atomic<bool> stopping{false};

  mutable std::mutex state_mutex;
  Current now;                                        // guarded by state_mutex
  std::vector<std::weak_ptr<const Module>> retiring;  // guarded by state_mutex

  SerialWorker worker;  // last: its jobs use all of the above

 private:
  Result<std::shared_ptr<const RoutingTable>> next_table(const LoadedComposition& next,
                                                         uint64_t* epoch) const;
  /// Writes the record, calls `publish`, takes the record back if that fails.
  Status persist_and(const LoadedComposition& next, uint64_t epoch,
                     const std::function<Status()>& publish);
  Status publish_patiently(const std::shared_ptr<const RoutingTable>& table, InFlight in_flight);
  /// Puts those of `left` that are not current on the list of the retiring. state_mutex is held.
  void note_retiring(const std::vector<std::shared_ptr<const Module>>& left);
  ChangeReport make_current(uint64_t epoch, LoadedComposition next, const std::string& digest,
                            std::vector<ChangeItem> changes);
};

/// One warning each.
void log_notes(const std::vector<std::string>& notes);
/// "2024-01-02T03:04:05Z"
std::string utc_now();
/// One Status of several: the first one's code and hint, all messages, one per line.
Status join(const std::vector<Status>& refusals);

}  // namespace chimera
