// Canaries: begun, promoted, aborted (canary.h says what they are).
#include "daemon/registry/canary.h"

#include <fmt/format.h>

#include <utility>

#include "base/log/log.h"
#include "daemon/registry/canary_bounds.h"
#include "daemon/registry/impl.h"

namespace chimera {
namespace {

Status no_canary() {
  return {Code::kFailedPrecondition, "canary: found none (expected one)",
          "`chimera load PATH --canary 10%` begins one"};
}

/// A module that its namesake left disabled would be tried by nobody.
Status check_used(const Composition& composition, const std::string& name) {
  const CompositionModule* module = composition.find(name);
  if (module == nullptr || module->enabled) return {};
  return {Code::kFailedPrecondition,
          fmt::format("module {}: found it disabled (expected it enabled, to be tried)", name),
          "`chimera load PATH --enabled --canary X%` enables it for the canary"};
}

void log_end(const CanaryStatus& canary) {
  const auto write = canary.outcome == CanaryOutcome::kAborted ? log::warning : log::info;
  write("canary_ended", {{"module", canary.module},
                         {"version", canary.version},
                         {"epoch", canary.epoch},
                         {"outcome", kCanaryOutcomeNames.text(canary.outcome)},
                         {"reason", canary.reason}});
}

}  // namespace

Status Registry::Impl::no_change_beside_canary() const {
  const MutexLock lock(state_mutex);
  if (!canary) return {};
  return {Code::kFailedPrecondition,
          fmt::format("canary: found one, {} {} on epoch {} (expected none while the composition "
                      "changes)",
                      canary->status.module, canary->status.version, canary->status.epoch),
          "`chimera canary promote` or `chimera canary abort` ends it"};
}

Result<ChangeReport> Registry::Impl::begin_canary(const Running& running, const Edit& edit,
                                                  const CanaryArgs& args) {
  const auto deadline = std::chrono::steady_clock::now() + options.publish_timeout;
  std::vector<std::shared_ptr<const ActiveSet>> there;
  Status missing;
  for (;;) {
    Patience patience{deadline, false, missing};
    auto answer = try_canary(running, edit, args, &patience);
    if (wait_for(&patience, &there, &missing)) continue;
    if (!patience.gave_way) return answer;
    const MutexLock until_revoked(revoke_mutex);
  }
}

Result<ChangeReport> Registry::Impl::try_canary(const Running& running, const Edit& edit,
                                                const CanaryArgs& args, Patience* patience) {
  // First of all locals, as in try_commit().
  const MutexLock lock(commit_mutex);
  CHIMERA_RETURN_IF_ERROR(no_change_beside_canary());
  CHIMERA_RETURN_IF_ERROR(wanted(running));
  const Current from = current();
  LoadedComposition next = from.loaded;
  CHIMERA_RETURN_IF_ERROR(edit(&next));
  CHIMERA_RETURN_IF_ERROR(check_used(next.composition, args.module));
  ChangeReport report;
  report.changes = difference(from.loaded, next);
  report.composition = next.composition.digest();
  report.disabled = disabled_modules(next.composition);
  report.epoch = from.epoch;
  if (report.changes.empty()) return report;
  const uint64_t epoch = std::max(options.store->last_epoch(), from.epoch) + 1;
  auto table = options.loader->builder().build(epoch, next.composition, next.modules);
  if (!table.ok()) return table.status();
  auto used = used_of(**table);
  CHIMERA_RETURN_IF_ERROR(check_there(used, patience));
  // A revocation that the disk did not take yet goes first: behind a later epoch it never could.
  CHIMERA_RETURN_IF_ERROR(record_current());
  // Answers will name it: it must not come again after a crash.
  CHIMERA_RETURN_IF_ERROR(options.store->reserve(epoch));
  const auto publish = [&](std::chrono::milliseconds attempt) {
    return options.engine->publish_canary(*table, args.fraction, attempt);
  };
  CHIMERA_RETURN_IF_ERROR(publish_patiently([&] { return wanted(running); }, publish, patience));
  report.epoch = epoch;
  report.notes = (*table)->notes();
  report.canary = args.fraction;
  CanaryStatus status;
  status.module = args.module;
  status.version = args.version;
  status.digest = args.digest;
  status.fraction = args.fraction;
  status.epoch = epoch;
  status.composition = report.composition;
  status.since = utc_now();
  status.bounds = options.canary_bounds;
  log::info("canary_began", {{"module", status.module},
                             {"version", status.version},
                             {"epoch", epoch},
                             {"fraction", args.fraction}});
  {
    const MutexLock state(state_mutex);
    canary.emplace(Canary{std::move(status), std::move(next), std::move(used)});
  }
  if (!options.canary_bounds.none()) canary_guard.begin();
  return report;
}

bool Registry::Impl::tried_by_canary(const std::string& name) const {
  const MutexLock lock(state_mutex);
  return canary && canary->status.module == name;
}

std::optional<CanaryStatus> Registry::Impl::end_canary(CanaryOutcome outcome,
                                                       const CanaryCounts& counts,
                                                       const std::string& reason) {
  LoadedComposition gone;  // let go of outside of the lock
  std::shared_ptr<const ActiveSet> used;
  CanaryStatus ended;
  {
    const MutexLock lock(state_mutex);
    if (!canary) return std::nullopt;
    ended = std::move(canary->status);
    ended.outcome = outcome;
    ended.until = utc_now();
    ended.reason = reason;
    if (counts.epoch == ended.epoch) ended.counts = counts;
    gone = std::move(canary->loaded);
    used = std::move(canary->used);
    canary.reset();
    note_retiring(gone.modules);
    last_canary = ended;
  }
  log_end(ended);
  return ended;
}

Result<ChangeReport> Registry::Impl::make(const PromoteArgs&, const Running& running) {
  const auto put = [this](LoadedComposition* next) -> Status {
    const MutexLock lock(state_mutex);
    if (!canary) return no_canary();
    *next = canary->loaded;  // nothing changed since, or it would have been aborted
    return {};
  };
  return commit(running, put, InFlight::kPin, 0, /*promotes=*/true);
}

Result<ChangeReport> Registry::Impl::abort_canary(const std::string& reason,
                                                  std::optional<uint64_t> epoch) {
  // As a revocation: a promotion that waits for a free epoch gives way.
  const MutexLock turn(revoke_mutex);
  const Announcement announcement(revokes_waiting);
  const MutexLock lock(commit_mutex);
  {
    const MutexLock state(state_mutex);
    if (!canary || (epoch && canary->status.epoch != *epoch)) return no_canary();
  }
  const CanaryCounts counts = options.engine->canary();
  CHIMERA_RETURN_IF_ERROR(options.engine->withdraw_canary());
  const auto ended = end_canary(CanaryOutcome::kAborted, counts, reason);
  const PublishedEpoch is = options.engine->current();
  ChangeReport report;
  report.epoch = is.epoch;
  report.composition = is.composition;
  report.notes = is.notes;
  report.changes.push_back({ChangeAction::kAbort, ended->module, reason});
  return report;
}

bool Registry::Impl::look_at_canary() {
  CanaryStatus status;
  {
    const MutexLock lock(state_mutex);
    if (!canary) return true;
    status = canary->status;
  }
  const CanaryCounts counts = options.engine->canary();
  if (counts.epoch != status.epoch) return false;
  const auto broken = broken_bound(status.bounds, counts.canary);
  if (!broken) return false;
  const auto aborted = abort_canary(*broken, status.epoch);
  if (aborted.ok()) return true;
  // It is tried again ten times a second, and said once.
  if (std::exchange(abort_refused, status.epoch) != status.epoch) {
    log::error("canary_not_aborted",
               {{"module", status.module}, {"reason", aborted.status().message()}});
  }
  return false;
}

Result<ChangeReport> Registry::abort_canary() {
  return impl_->abort_canary("it was asked for", {});
}

std::optional<CanaryStatus> Registry::canary() const {
  const CanaryCounts counts = impl_->options.engine->canary();
  const MutexLock lock(impl_->state_mutex);
  if (!impl_->canary) return std::nullopt;
  CanaryStatus status = impl_->canary->status;
  if (counts.epoch == status.epoch) status.counts = counts;
  return status;
}

std::optional<CanaryStatus> Registry::last_canary() const {
  const MutexLock lock(impl_->state_mutex);
  return impl_->last_canary;
}

}  // namespace chimera
