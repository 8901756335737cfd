// How a prepared composition becomes durable and current.
#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <ctime>

#include "base/log/log.h"
#include "daemon/registry/impl.h"

namespace chimera {
namespace {

// One attempt to publish. Short, so that a revocation that arrives meanwhile waits no longer.
constexpr std::chrono::milliseconds kAttempt{100};

// Milliseconds since its making, for the log.
class Stopwatch {
 public:
  double ms() const {
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start_)
        .count();
  }

 private:
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// Counts revocations that want the commit lock.
class Announcement {
 public:
  explicit Announcement(std::atomic<int>& count) : count_(count) { ++count_; }
  ~Announcement() { --count_; }
  Announcement(const Announcement&) = delete;
  Announcement& operator=(const Announcement&) = delete;

 private:
  std::atomic<int>& count_;
};

void log_change(const ChangeReport& report) {
  for (const ChangeItem& item : report.changes) {
    log::info("changed", {{"epoch", report.epoch},
                          {"action", kChangeActionNames.text(item.action)},
                          {"module", item.module},
                          {"detail", item.detail}});
  }
  log::info("published", {{"epoch", report.epoch}, {"composition", report.composition}});
}

}  // namespace

void log_notes(const std::vector<std::string>& notes) {
  for (const std::string& note : notes) log::warning("composition_note", {{"note", note}});
}

std::string utc_now() {
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)));
}

Status join(const std::vector<Status>& refusals) {
  if (refusals.empty()) return {};
  std::string text;
  for (const Status& refusal : refusals) {
    if (!text.empty()) text += '\n';
    text += refusal.message();
  }
  return {refusals.front().code(), std::move(text), refusals.front().hint()};
}

Result<std::shared_ptr<const RoutingTable>> Registry::Impl::next_table(
    const LoadedComposition& next, uint64_t* epoch) const {
  *epoch = std::max(options.store->last_epoch(), current().epoch) + 1;
  return options.loader->builder().build(*epoch, next.composition, next.modules);
}

Status Registry::Impl::persist_and(const LoadedComposition& next, uint64_t epoch, uint64_t origin,
                                   const std::function<Status()>& publish) {
  // Durable before visible: nobody may see an epoch that a crash could make unsaid.
  const Stopwatch watch;
  CHIMERA_RETURN_IF_ERROR(options.store->append(
      {epoch, utc_now(), next.composition, origin, next.revoked, next.set_aside}));
  log::debug("state_written", {{"epoch", epoch}, {"ms", watch.ms()}});
  Status published = publish();
  log::debug("publication",
             {{"epoch", epoch}, {"ms", watch.ms()}, {"result", code_name(published.code())}});
  if (published.ok()) return {};
  const Status taken_back = options.store->retract();
  if (taken_back.ok()) return published;
  // Still true in memory; the next record that can be written corrects the disk as well.
  log::error("state_ahead", {{"epoch", epoch}, {"reason", taken_back.message()}});
  return {published.code(),
          fmt::format("{}; and {}: a restart now would take the refused composition",
                      published.message(), taken_back.message()),
          published.hint()};
}

Status Registry::Impl::publish_patiently(const Running& running,
                                         const std::shared_ptr<const RoutingTable>& table,
                                         InFlight in_flight, Patience* patience) {
  for (;;) {
    const auto start = std::chrono::steady_clock::now();
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(patience->deadline - start);
    const auto attempt = std::clamp(left, std::chrono::milliseconds(0), kAttempt);
    Status status = options.engine->publish(table, in_flight, attempt);
    // An answer before its time was up is final; it was not for want of a free epoch.
    const bool waited = std::chrono::steady_clock::now() - start >= attempt;
    if (status.code() != Code::kFailedPrecondition || !waited || left <= kAttempt) return status;
    CHIMERA_RETURN_IF_ERROR(wanted(running));
    patience->gave_way = revokes_waiting > 0;
    if (patience->gave_way) return status;
  }
}

void Registry::Impl::note_retiring(const std::vector<std::shared_ptr<const Module>>& left) {
  const CurrentModules kept(now.loaded);
  // One that was loaded again while sequences still used it is no longer on its way out.
  std::erase_if(retiring,
                [&](const auto& module) { return module.expired() || kept.contains(module); });
  for (const auto& module : left) {
    if (!kept.contains(module)) retiring.push_back(module);
  }
}

ChangeReport Registry::Impl::make_current(Current next, const std::string& digest,
                                          std::vector<ChangeItem> changes) {
  ChangeReport report{
      next.epoch, digest, std::move(changes), {}, disabled_modules(next.loaded.composition)};
  Current old;
  {
    const MutexLock lock(state_mutex);
    old = std::exchange(now, std::move(next));
    note_retiring(old.loaded.modules);
  }
  log_change(report);
  return report;
}

Result<ChangeReport> Registry::Impl::commit(const Running& running, const Edit& edit,
                                            InFlight in_flight, uint64_t origin) {
  const auto deadline = std::chrono::steady_clock::now() + options.publish_timeout;
  for (;;) {
    Patience patience{deadline};
    Result<ChangeReport> report = try_commit(running, edit, in_flight, origin, &patience);
    if (!patience.gave_way) return report;
    const MutexLock until_revoked(revoke_mutex);
  }
}

Result<ChangeReport> Registry::Impl::try_commit(const Running& running, const Edit& edit,
                                                InFlight in_flight, uint64_t origin,
                                                Patience* patience) {
  // First of all locals, so that what they hold is gone before a waiting revocation gets its turn.
  const MutexLock lock(commit_mutex);
  CHIMERA_RETURN_IF_ERROR(wanted(running));
  Current from = current();
  const uint64_t basis = from.epoch;
  const LoadedComposition before = from.loaded;
  LoadedComposition next = std::move(from.loaded);
  CHIMERA_RETURN_IF_ERROR(edit(&next));
  std::vector<ChangeItem> changes = difference(before, next);
  const std::string digest = next.composition.digest();
  const auto note_edit = [&] {
    const Change& change = *running.change;
    if (change.kind == Change::Kind::kEdit) {
      queue.note_edit(change.turn, change.names.front(), running.edit);
    }
  };
  if (changes.empty()) {
    note_edit();
    log::debug("unchanged", {{"epoch", basis}});
    return ChangeReport{
        basis, digest, {}, options.engine->current().notes, disabled_modules(next.composition)};
  }
  uint64_t epoch = 0;
  auto table = next_table(next, &epoch);
  if (!table.ok()) return table.status();
  CHIMERA_RETURN_IF_ERROR(persist_and(next, epoch, origin, [&] {
    return publish_patiently(running, *table, in_flight, patience);
  }));
  ChangeReport report = make_current({epoch, std::move(next), origin == 0 ? epoch : origin}, digest,
                                     std::move(changes));
  note_edit();
  report.notes = (*table)->notes();
  log_notes(report.notes);
  return report;
}

Result<ChangeReport> Registry::Impl::revoke(const std::string& name, uint64_t asked) {
  // Before the commit: a load that commits after it is refused, and what one before it brought in
  // is taken out.
  queue.note_revocation(asked, name);
  const MutexLock turn(revoke_mutex);
  const Announcement announcement(revokes_waiting);
  const MutexLock lock(commit_mutex);
  LoadedComposition next = current().loaded;
  if (next.composition.find(name) == nullptr && !queue.loading(name, asked)) {
    return unknown_module(next.composition, name);
  }
  const Composition before = next.composition;
  revoke_module(&next, name);
  uint64_t epoch = 0;
  auto table = next_table(next, &epoch);
  if (!table.ok()) return table.status();
  bool tried = false;
  const auto take_out = [&] {
    tried = true;
    return options.engine->revoke(name, *table);
  };
  Status status = persist_and(next, epoch, 0, take_out);
  // Who must be out is not kept in by a disk: the record follows.
  const bool durable = status.ok() || tried;
  if (!durable) {
    log::error("revocation_not_recorded", {{"module", name},
                                           {"epoch", epoch},
                                           {"reason", status.message()},
                                           {"hint", "it is written as soon as it can be"}});
    status = take_out();
  }
  CHIMERA_RETURN_IF_ERROR(status);
  const std::string digest = next.composition.digest();
  std::vector<ChangeItem> changes = difference(before, next.composition);
  for (ChangeItem& item : changes) item.action = ChangeAction::kRevoke;
  if (changes.empty()) changes.push_back({ChangeAction::kRevoke, name, "while it was loaded"});
  ChangeReport report = make_current({epoch, std::move(next), epoch}, digest, std::move(changes));
  report.notes = (*table)->notes();
  report.durable = durable;
  if (!durable) {
    report.notes.emplace_back(
        "not on disk yet: a restart now would bring it back; it is tried again");
    late_record.begin();
  }
  return report;
}

Status Registry::Impl::record_current() {
  const MutexLock lock(commit_mutex);
  const Current is = current();
  if (options.store->last_epoch() >= is.epoch) return {};
  const uint64_t origin = is.place == is.epoch ? 0 : is.place;
  return options.store->append(
      {is.epoch, utc_now(), is.loaded.composition, origin, is.loaded.revoked, is.loaded.set_aside});
}

}  // namespace chimera
