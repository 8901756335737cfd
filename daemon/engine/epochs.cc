// Tables: publishing the next one, waiting for a free epoch, revoking a module.
//
// All of it runs on the engine thread between two steps. Every live sequence ends up in one of
// three ways: *moved* to the new table when its scope is the same there (its outputs cannot
// differ), *pinned* to the table it is on, or *restarted* on the new one.
#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "daemon/engine/impl.h"
#include "daemon/engine/module_selection.h"

namespace chimera {

Status Engine::Impl::execute(std::shared_ptr<TableCommand> command) {
  std::future<Status> answer = command->answer.get_future();
  {
    const std::lock_guard lock(mutex);
    if (stopping) return {Code::kUnavailable, "the engine is stopping"};
    arrived_commands.push_back(std::move(command));
  }
  wake.notify_one();
  Status status = answer.get();
  // What the engine let go of is gone when the caller goes on; waited for here, not in the engine.
  reaper.flush();
  return status;
}

/// Publishes keep their order; a revocation does not queue behind one that waits for epochs.
void Engine::Impl::run_table_commands() {
  if (commands.empty()) return;
  std::vector<std::pair<std::shared_ptr<TableCommand>, Status>> answers;
  bool again = true;
  while (again) {
    again = false;
    bool blocked = false;
    for (auto it = commands.begin(); it != commands.end();) {
      TableCommand& command = **it;
      std::optional<Status> status =
          command.revoked ? revoke_now(command) : try_publish(command, blocked);
      if (!status) {
        blocked = true;
        ++it;
        continue;
      }
      // Earlier publishes that waited were overtaken; they must not keep the module alive.
      again = again || (command.revoked && blocked);
      answers.emplace_back(std::move(*it), std::move(*status));
      it = commands.erase(it);
    }
  }
  if (answers.empty()) return;
  router.begin_pass({}, nullptr);  // it holds nothing of the last pass either
  flush_endings();
  router_copied = {};  // once a change is acknowledged, what was counted before it is visible
  refresh_snapshot();
  for (auto& [command, status] : answers) {
    for (auto& [id, view] : command->views) {
      if (view.ok()) reaper.take(std::move(*view));
    }
    command->views.clear();
    reaper.take(std::move(command->table));
    command->answer.set_value(std::move(status));
  }
}

/// nullopt: must wait, for an epoch or behind another publish.
std::optional<Status> Engine::Impl::try_publish(TableCommand& command, bool queue_blocked) {
  const uint64_t epoch = command.table->epoch();
  if (epoch <= table->epoch())
    return Status(Code::kFailedPrecondition,
                  fmt::format("epoch {} cannot follow epoch {}, which was published meanwhile",
                              epoch, table->epoch()),
                  "build the change again on the current composition");
  const bool late = Clock::now() >= command.deadline;
  if (queue_blocked) {
    if (!late) return std::nullopt;
    return Status(
        Code::kFailedPrecondition,
        fmt::format("epoch {} waited behind another publish until its time was up", epoch),
        "try again once that one is through");
  }
  const bool restart_all = command.in_flight == InFlight::kRestart;
  if (!restart_all) {
    const std::set<uint64_t> after = epochs_after(command);
    if (static_cast<int64_t>(after.size()) > options.max_live_epochs) {
      if (!late) return std::nullopt;
      return blocked_status(command, after);
    }
  }
  for (const auto& sequence : live) {
    if (sequence->ended) continue;
    const Result<RouteViewPtr>& view = view_on(command, *sequence);
    if (view.ok() && (*view)->scope == sequence->view->scope)
      move(*sequence, *view);
    else if (restart_all)
      restart(*sequence, view);
  }
  set_current(command.table);
  return Status();
}

Status Engine::Impl::revoke_now(TableCommand& command) {
  if (command.table->epoch() <= table->epoch())
    return {Code::kFailedPrecondition,
            fmt::format("epoch {} cannot follow epoch {}", command.table->epoch(), table->epoch()),
            "build the table again on the current composition"};
  // Cached keys and values are what the module made of other people's tokens: they go as well, and
  // before the restarts below could find them.
  cache->forget_all();
  for (const auto& sequence : live) {
    if (sequence->ended) continue;
    const Result<RouteViewPtr>& view = view_on(command, *sequence);
    if (view.ok() && (*view)->scope == sequence->view->scope)
      move(*sequence, *view);
    else if (sequence->view->table->module_index(*command.revoked) >= 0)
      // Also a sequence that may not use the module but is pinned to a table that holds it: the
      // table keeps the module's memory, and that is to be gone.
      restart(*sequence, view);
  }
  set_current(command.table);
  end_exhausted();
  return {};
}

/// Epochs in use if the command were carried out now.
std::set<uint64_t> Engine::Impl::epochs_after(TableCommand& command) {
  std::set<uint64_t> epochs{command.table->epoch()};
  for (const auto& sequence : live) {
    if (sequence->ended) continue;
    const Result<RouteViewPtr>& view = view_on(command, *sequence);
    if (!view.ok() || (*view)->scope != sequence->view->scope)
      epochs.insert(sequence->view->table->epoch());
  }
  return epochs;
}

Status Engine::Impl::blocked_status(TableCommand& command, const std::set<uint64_t>& after) const {
  const uint64_t oldest = *after.begin();
  const auto held = std::count_if(live.begin(), live.end(), [&](const auto& sequence) {
    return !sequence->ended && sequence->view->table->epoch() == oldest;
  });
  return {Code::kFailedPrecondition,
          fmt::format("publishing epoch {} would leave {} epochs in use (limit {}, "
                      "max_live_epochs); the oldest, epoch {}, is held by {} sequence{}",
                      command.table->epoch(), after.size(), options.max_live_epochs, oldest, held,
                      held == 1 ? "" : "s"),
          "wait for these sequences to end, cancel them, or publish with in_flight: restart"};
}

/// The view that `sequence` would have on the command's table; not_found when none of the modules
/// it asked for is there.
const Result<RouteViewPtr>& Engine::Impl::view_on(TableCommand& command, const Sequence& sequence) {
  const auto known = command.views.find(sequence.id);
  if (known != command.views.end()) return known->second;
  ResolvedModules modules = resolve_modules(sequence.request.modules, *command.table);
  Result<RouteViewPtr> view =
      modules.exhausted
          ? Result<RouteViewPtr>(Status(Code::kNotFound, "no module of modules.only is left"))
          : make_route_view(command.table, modules.mask, std::move(modules.bias));
  return command.views.emplace(sequence.id, std::move(view)).first->second;
}

void Engine::Impl::move(Sequence& sequence, RouteViewPtr view) {
  reaper.take(sequence.set_view(std::move(view)));
}

/// Puts a sequence on another view with its keys and values to be computed again from its tokens;
/// ends it when the new table has nothing of what it asked for.
void Engine::Impl::restart(Sequence& sequence, const Result<RouteViewPtr>& view) {
  if (!view.ok()) {
    if (view.status().code() == Code::kNotFound) return end(sequence, "revoked");
    return fail(sequence, view.status());
  }
  sequence.restart();
  move(sequence, *view);
  ++counters.restarted;
  if (Status placed = scheduler.place(sequence); !placed.ok()) fail(sequence, std::move(placed));
}

void Engine::Impl::set_current(std::shared_ptr<const RoutingTable> next) {
  {
    const std::lock_guard lock(mutex);
    table.swap(next);
  }
  reaper.take(std::move(next));
}

}  // namespace chimera
