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

Status Registry::Impl::persist_and(std::vector<EpochRecord> records,
                                   const std::function<Status()>& publish) {
  // Durable before visible: nobody may see an epoch that a crash could make unsaid.
  const Stopwatch watch;
  // By itself, so that taking the records back does not take it back too.
  CHIMERA_RETURN_IF_ERROR(record_current());
  const size_t written = records.size();
  const uint64_t epoch = records.back().epoch;
  CHIMERA_RETURN_IF_ERROR(options.store->append(std::move(records)));
  log::debug("state_written", {{"epoch", epoch}, {"epochs", written}, {"ms", watch.ms()}});
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

Status Registry::Impl::publish_patiently(const std::function<Status()>& wanted_by_any,
                                         const Publish& publish, Patience* patience) {
  for (;;) {
    const auto start = std::chrono::steady_clock::now();
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(patience->deadline - start);
    const auto attempt = std::clamp(left, std::chrono::milliseconds(0), kAttempt);
    Status status = publish(attempt);
    // An answer before its time was up is final; it was not for want of a free epoch.
    const bool waited = std::chrono::steady_clock::now() - start >= attempt;
    if (status.code() != Code::kFailedPrecondition || !waited || left <= kAttempt) return status;
    CHIMERA_RETURN_IF_ERROR(wanted_by_any());
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

void Registry::Impl::make_current(Current next) {
  bool other_modules = false, other_experts = false;
  std::shared_ptr<const ActiveSet> used = next.used;
  {
    Current old;
    const MutexLock lock(state_mutex);
    old = std::exchange(now, std::move(next));
    note_retiring(old.loaded.modules);
    // What was kept for this is in use now, and what was kept for another composition is not
    // wanted.
    if (old.loaded.modules != now.loaded.modules) options.loader->kept().let_go_soon();
    other_modules = old.used->layout != used->layout;
    other_experts = used->lease != nullptr && !old.used->lease->same(*used->lease);
  }
  if (other_experts) options.loader->residency()->let_go_unused();
  if (other_modules) options.loader->builder().averages()->set_current(used->layout->modules());
}

Status Registry::Impl::check_there(const std::shared_ptr<const ActiveSet>& used,
                                   Patience* patience) {
  if (used->ready()) return {};
  if (!patience->missing.ok()) return patience->missing;
  patience->to_wait.push_back(used);
  return {Code::kUnavailable, "what it needs is to be read or made first"};
}

bool Registry::Impl::wait_for(Patience* patience,
                              std::vector<std::shared_ptr<const ActiveSet>>* kept,
                              Status* failure) {
  for (auto& used : patience->to_wait) {
    if (Status status = used->wait(); !status.ok()) *failure = std::move(status);
    kept->push_back(std::move(used));
  }
  return !patience->to_wait.empty();
}

Registry::Impl::Answers Registry::Impl::commit(std::span<const Proposal> proposals,
                                               InFlight in_flight, uint64_t origin) {
  const auto deadline = std::chrono::steady_clock::now() + options.publish_timeout;
  std::vector<std::shared_ptr<const ActiveSet>> there;  // kept until they are in use
  Status missing;
  for (;;) {
    Patience patience{deadline, false, missing};
    Answers answers = try_commit(proposals, in_flight, origin, &patience);
    if (wait_for(&patience, &there, &missing)) continue;
    if (!patience.gave_way) return answers;
    const MutexLock until_revoked(revoke_mutex);
  }
}

Result<ChangeReport> Registry::Impl::add(const Proposal& proposal, uint64_t origin, Draft* draft,
                                         Patience* patience) const {
  CHIMERA_RETURN_IF_ERROR(wanted(proposal.running));
  LoadedComposition next = draft->loaded;
  CHIMERA_RETURN_IF_ERROR(proposal.edit(&next));
  ChangeReport report;
  report.changes = difference(draft->loaded, next);
  report.composition = next.composition.digest();
  report.disabled = disabled_modules(next.composition);
  if (!report.changes.empty()) {
    uint64_t epoch = std::max(options.store->last_epoch(), draft->epoch) + 1;
    auto table = options.loader->builder().build(epoch, next.composition, next.modules);
    if (!table.ok()) return table.status();
    auto used = used_of(**table);
    CHIMERA_RETURN_IF_ERROR(check_there(used, patience));
    draft->used = std::move(used);
    draft->epoch = epoch;
    draft->table = std::move(*table);
    draft->records.push_back(
        {epoch, utc_now(), next.composition, origin, next.revoked, next.set_aside});
    draft->loaded = std::move(next);
  }
  report.epoch = draft->epoch;
  report.notes = draft->table ? draft->table->notes() : options.engine->current().notes;
  return report;
}

Registry::Impl::Answers Registry::Impl::try_commit(std::span<const Proposal> proposals,
                                                   InFlight in_flight, uint64_t origin,
                                                   Patience* patience) {
  // First of all locals, so that what they hold is gone before a waiting revocation gets its turn.
  const MutexLock lock(commit_mutex);
  Draft draft;
  {
    Current from = current();
    draft.basis = draft.epoch = from.epoch;
    draft.loaded = std::move(from.loaded);
  }
  Answers answers;
  const Status beside = no_change_beside_canary();
  const CanaryCounts counts = options.engine->canary();
  for (const Proposal& proposal : proposals) {
    answers.push_back(beside.ok() || proposal.promotes ? add(proposal, origin, &draft, patience)
                                                       : beside);
  }
  if (!patience->to_wait.empty()) return answers;
  Status status;
  if (!draft.records.empty()) {
    status = persist_and(std::move(draft.records), [&] {
      const auto publish = [&](std::chrono::milliseconds attempt) {
        return options.engine->publish(draft.table, in_flight, attempt);
      };
      return publish_patiently([&] { return wanted_by_any(proposals); }, publish, patience);
    });
    if (status.ok())
      make_current({draft.epoch, std::move(draft.loaded), origin == 0 ? draft.epoch : origin,
                    std::move(draft.used)});
  }
  const bool promoted =
      !proposals.empty() && proposals.front().promotes && answers.front().ok() && status.ok();
  if (promoted) end_canary(CanaryOutcome::kPromoted, counts, "it was asked for");
  for (size_t i = 0; i < answers.size(); ++i) {
    if (!answers[i].ok()) continue;
    const bool current = answers[i]->epoch == draft.basis;
    if (!current && !status.ok()) {
      answers[i] = status;
      continue;
    }
    if (!answers[i]->changes.empty()) {
      log_change(*answers[i]);
      log_notes(answers[i]->notes);
    }
    const Running& running = proposals[i].running;
    if (running.change->kind == Change::Kind::kEdit)
      queue.note_edit(running.change->turn, running.change->names.front(), running.edit);
  }
  return answers;
}

Status Registry::Impl::wanted_by_any(std::span<const Proposal> proposals) const {
  Status status;
  for (const Proposal& proposal : proposals) {
    status = wanted(proposal.running);
    if (status.ok()) break;
  }
  return status;
}

void Registry::Impl::trace(const std::string& name, RevokedModule* out) const {
  std::vector<std::shared_ptr<const Module>> modules;
  {
    const MutexLock lock(state_mutex);
    // What is tried under that name counts where nothing else has it.
    if (canary) modules = canary->loaded.modules;
    modules.insert(modules.end(), now.loaded.modules.begin(), now.loaded.modules.end());
  }
  out->name = name;
  for (const auto& module : modules) {
    if (module->name() != name || out->module.lock() == module) continue;
    out->version = module->manifest.version;
    out->digest = module->manifest.digest;
    out->bytes = module->resident_bytes();
    out->module = module;
    out->where = ModuleTraces(*module);
    out->before = out->where.look();
  }
}

Result<ChangeReport> Registry::Impl::revoke(const std::string& name, uint64_t asked,
                                            RevokedModule* revoked) {
  // Before the commit: a load that commits after it is refused, and what one before it brought in
  // is taken out.
  queue.note_revocation(asked, name);
  jobs.give_up_unwanted();
  Result<ChangeReport> report = take_out(name, asked, revoked);
  // What a plan kept of it serves nobody, and may take seconds to be destroyed.
  options.loader->kept().revoke(name);
  return report;
}

Result<ChangeReport> Registry::Impl::take_out(const std::string& name, uint64_t asked,
                                              RevokedModule* revoked) {
  const MutexLock turn(revoke_mutex);
  const Announcement announcement(revokes_waiting);
  const MutexLock lock(commit_mutex);
  if (revoked != nullptr) trace(name, revoked);  // it may have been replaced meanwhile
  LoadedComposition next = current().loaded;
  const bool canaried = tried_by_canary(name);
  const bool known = canaried || next.composition.find(name) != nullptr;
  if (!known && !queue.loading(name, asked)) return unknown_module(next.composition, name);
  const Composition before = next.composition;
  revoke_module(&next, name);
  const CanaryCounts counts = options.engine->canary();
  const uint64_t epoch = std::max(options.store->last_epoch(), current().epoch) + 1;
  auto table = options.loader->builder().build(epoch, next.composition, next.modules);
  if (!table.ok()) return table.status();
  // Who must be out is not kept in by a disk, or by the making of what the others are together:
  // requests wait for what takes its place.
  auto used = used_of(**table);
  used->begin(AverageFor::kComposition);
  bool tried = false;
  const auto of_the_engine = [&] {
    tried = true;
    return options.engine->revoke(name, *table);
  };
  Status status = persist_and(
      {{epoch, utc_now(), next.composition, 0, next.revoked, next.set_aside}}, of_the_engine);
  // Who must be out is not kept in by a disk: the record follows.
  const bool durable = status.ok() || tried;
  if (!durable) {
    log::error("revocation_not_recorded", {{"module", name},
                                           {"epoch", epoch},
                                           {"reason", status.message()},
                                           {"hint", "it is written as soon as it can be"}});
    status = of_the_engine();
  }
  CHIMERA_RETURN_IF_ERROR(status);
  if (revoked != nullptr) {
    const EngineStats stats = options.engine->stats();
    const auto last = stats.router.last_pass.find(name);
    if (last != stats.router.last_pass.end()) revoked->last_pass = last->second;
    revoked->passes = stats.steps;
  }
  ChangeReport report;
  report.epoch = epoch;
  report.composition = (*table)->digest();
  report.changes = difference(before, next.composition);
  for (ChangeItem& item : report.changes) item.action = ChangeAction::kRevoke;
  if (report.changes.empty())
    report.changes.push_back(
        {ChangeAction::kRevoke, name, canaried ? "while it was tried" : "while it was loaded"});
  report.notes = (*table)->notes();
  report.disabled = disabled_modules(next.composition);
  report.durable = durable;
  make_current({epoch, std::move(next), epoch, std::move(used)});
  end_canary(CanaryOutcome::kAborted, counts, "module " + name + " was revoked");
  log_change(report);
  if (!durable) {
    report.notes.emplace_back(
        "not on disk yet: a restart now would bring it back; it is tried again");
    late_record.begin();
  }
  return report;
}

Status Registry::Impl::record_current() {
  {
    const MutexLock lock(state_mutex);
    if (options.store->last_epoch() >= now.epoch) return {};
  }
  const Current is = current();
  const uint64_t origin = is.place == is.epoch ? 0 : is.place;
  return options.store->append({{is.epoch, utc_now(), is.loaded.composition, origin,
                                 is.loaded.revoked, is.loaded.set_aside}});
}

bool Registry::Impl::record_late() {
  const MutexLock lock(commit_mutex);
  if (!record_current().ok()) return false;
  log::info("revocation_recorded");
  return true;
}

}  // namespace chimera
