#include "daemon/engine/epoch_board.h"

#include <fmt/format.h>

#include <algorithm>

#include "daemon/engine/sequence/module_selection.h"

namespace chimera {
namespace {

Status stopping() { return {Code::kUnavailable, "the engine is stopping"}; }

}  // namespace

EpochBoard::EpochBoard(std::shared_ptr<const RoutingTable> first, int64_t max_live_epochs,
                       Doorbell* bell, Reaper* reaper)
    : max_live_epochs_(max_live_epochs),
      bell_(bell),
      reaper_(reaper),
      table_(first),
      current_(std::move(first)) {}

std::shared_ptr<const RoutingTable> EpochBoard::table() const {
  const MutexLock lock(mutex_);
  return table_;
}

std::vector<EpochInfo> EpochBoard::epochs() const {
  const MutexLock lock(mutex_);
  return epochs_;
}

Status EpochBoard::publish(std::shared_ptr<const RoutingTable> table, InFlight in_flight,
                           std::chrono::milliseconds timeout) {
  if (!table) return {Code::kInvalidArgument, "publish needs a routing table"};
  auto command = std::make_shared<Command>();
  command->table = std::move(table);
  command->in_flight = in_flight;
  // A day stands for "as long as it takes" and keeps the sum in range.
  command->deadline =
      Clock::now() + std::min<std::chrono::milliseconds>(timeout, std::chrono::hours(24));
  return execute(std::move(command));
}

Status EpochBoard::revoke(const std::string& module, std::shared_ptr<const RoutingTable> table) {
  if (!table) return {Code::kInvalidArgument, "revoke needs a routing table"};
  if (table->module_index(module) >= 0)
    return {Code::kInvalidArgument,
            fmt::format("the table for the revocation of \"{}\" still holds it", module),
            "build the table without the module"};
  auto command = std::make_shared<Command>();
  command->kind = Command::Kind::kRevoke;
  command->table = std::move(table);
  command->revoked = module;
  return execute(std::move(command));
}

Status EpochBoard::execute(CommandPtr command) {
  std::future<Status> answer = command->answer.get_future();
  {
    const MutexLock lock(mutex_);
    if (closed_) return stopping();
    arrived_.push_back(std::move(command));
  }
  bell_->ring();
  Status status = answer.get();
  // What the engine let go of is gone when the caller goes on; waited for here, not in the engine.
  reaper_->flush();
  return status;
}

bool EpochBoard::idle() const {
  if (!waiting_.empty()) return false;
  const MutexLock lock(mutex_);
  return arrived_.empty();
}

void EpochBoard::collect_arrived() {
  const MutexLock lock(mutex_);
  std::move(arrived_.begin(), arrived_.end(), std::back_inserter(waiting_));
  arrived_.clear();
}

bool EpochBoard::carry_out(LiveSequences& live, RequestQueue& queue) {
  collect_arrived();
  bool again = !waiting_.empty();
  while (again) {
    again = false;
    bool blocked = false;
    for (auto it = waiting_.begin(); it != waiting_.end();) {
      Command& command = **it;
      std::optional<Status> status;
      switch (command.kind) {
        case Command::Kind::kRevoke:
          status = revoke_now(command, live, queue);
          break;
        case Command::Kind::kWithdraw:
          status = withdraw_now(command, live);
          break;
        case Command::Kind::kPublish:
        case Command::Kind::kCanary:
          status = try_publish(command, live, blocked);
          break;
      }
      if (!status) {
        blocked = true;
        ++it;
        continue;
      }
      // Earlier publishes that waited were overtaken; they must not keep the module alive.
      again = again || (command.overtakes() && blocked);
      answers_.emplace_back(std::move(*it), std::move(*status));
      it = waiting_.erase(it);
    }
  }
  return !answers_.empty();
}

void EpochBoard::acknowledge() {
  for (auto& [command, status] : answers_) {
    for (auto& [id, view] : command->views) {
      if (view.ok()) reaper_->take(std::move(*view));
    }
    command->views.clear();
    for (RouteViewPtr& view : command->made) reaper_->take(std::move(view));
    command->made.clear();
    reaper_->take(std::move(command->table));
    command->answer.set_value(std::move(status));
  }
  answers_.clear();
}

void EpochBoard::forget_views(RequestId id) {
  for (const CommandPtr& command : waiting_) {
    const auto known = command->views.find(id);
    if (known == command->views.end()) continue;
    if (known->second.ok()) reaper_->take(std::move(*known->second));
    command->views.erase(known);
  }
}

void EpochBoard::show(std::vector<EpochInfo> epochs) {
  const MutexLock lock(mutex_);
  epochs_.swap(epochs);
}

void EpochBoard::close() {
  {
    const MutexLock lock(mutex_);
    closed_ = true;
  }
  collect_arrived();
  for (const CommandPtr& command : waiting_) command->answer.set_value(stopping());
  waiting_.clear();
}

const Result<RouteViewPtr>& EpochBoard::Command::view_for(const Sequence& sequence) {
  const auto known = views.find(sequence.id);
  if (known != views.end()) return known->second;
  Result<RouteViewPtr> view = view_on(table, sequence.request.modules, made);
  if (view.ok() && std::find(made.begin(), made.end(), *view) == made.end()) {
    made.push_back(*view);
  }
  return views.emplace(sequence.id, std::move(view)).first->second;
}

bool EpochBoard::Command::same_scope(const Sequence& sequence) {
  // On the same layout, what it asked for is the same modules: only their options can differ.
  const RouteView& is = *sequence.view;
  if (is.table->layout() == table->layout()) return is.table->same_scope(*table, is.mask());
  const Result<RouteViewPtr>& view = view_for(sequence);
  return view.ok() && (*view)->scope == is.scope;
}

RouteViewPtr EpochBoard::Command::moved_view(const Sequence& sequence) {
  RouteViewPtr same = same_view(*sequence.view, table);
  return same != nullptr ? same : *view_for(sequence);
}

Status EpochBoard::check_epoch(const Command& command) const {
  const uint64_t epoch = command.table->epoch();
  const uint64_t last = std::max(current_->epoch(), canary_ ? canary_->epoch() : 0);
  if (epoch > last) return {};
  return {
      Code::kFailedPrecondition,
      fmt::format("epoch {} cannot follow epoch {}, which was published meanwhile", epoch, last),
      "build the change again on the current composition"};
}

std::optional<Status> EpochBoard::try_publish(Command& command, LiveSequences& live,
                                              bool queue_blocked) {
  if (Status wrong = check_epoch(command); !wrong.ok()) return wrong;
  const uint64_t epoch = command.table->epoch();
  const bool canary = command.kind == Command::Kind::kCanary;
  if (canary && canary_ != nullptr) {
    return Status(Code::kFailedPrecondition,
                  fmt::format("found a canary, epoch {} (expected none)", canary_->epoch()),
                  "promote or abort it first");
  }
  const bool late = Clock::now() >= command.deadline;
  if (queue_blocked) {
    if (!late) return std::nullopt;
    return Status(
        Code::kFailedPrecondition,
        fmt::format("epoch {} waited behind another publish until its time was up", epoch),
        "try again once that one is through");
  }
  const Layouts after = layouts_after(command, live);
  if (static_cast<int64_t>(after.size()) > max_live_epochs_) {
    if (!late) return std::nullopt;
    return blocked_status(command, live, after);
  }
  if (canary) {
    set_canary(command.table, command.fraction);
    return Status();
  }
  for (const auto& sequence : live.all()) {
    if (sequence->ended) continue;
    if (command.same_scope(*sequence)) {
      live.move(*sequence, command.moved_view(*sequence));
      continue;
    }
    switch (command.in_flight) {
      case InFlight::kPin:
        break;
      case InFlight::kRestart:
        live.restart(*sequence, command.view_for(*sequence));
        break;
    }
  }
  set_canary(nullptr, 0.0);
  set_current(command.table);
  return Status();
}

Status EpochBoard::revoke_now(Command& command, LiveSequences& live, RequestQueue& queue) {
  CHIMERA_RETURN_IF_ERROR(check_epoch(command));
  // Cached keys and values are what the module made of other people's tokens: they go as well, and
  // before the restarts below could find them.
  live.forget_prefixes();
  for (const auto& sequence : live.all()) {
    if (sequence->ended) continue;
    if (command.same_scope(*sequence)) {
      live.move(*sequence, command.moved_view(*sequence));
    } else if (sequence->view->table->module_index(command.revoked) >= 0 ||
               sequence->view->table == canary_) {
      // Also a sequence that may not use the module but is pinned to a table that holds it: the
      // table keeps the module's memory, and that is to be gone.
      live.restart(*sequence, command.view_for(*sequence));
    }
  }
  set_canary(nullptr, 0.0);
  set_current(command.table);
  // Requests that asked for nothing but what is gone need not wait for a slot.
  std::vector<PendingRequest> exhausted = queue.take_if([this](const PendingRequest& pending) {
    return resolve_modules(pending.request.modules, *current_).exhausted;
  });
  for (PendingRequest& pending : exhausted) {
    live.refuse(std::move(pending), FinishReason::kRevoked, *current_);
  }
  return {};
}

EpochBoard::Layouts EpochBoard::layouts_after(Command& command, const LiveSequences& live) const {
  Layouts layouts;
  const auto add = [&](const RoutingTable& table) {
    uint64_t& oldest = layouts.emplace(table.layout().get(), table.epoch()).first->second;
    oldest = std::min(oldest, table.epoch());
  };
  add(*command.table);
  const bool canary = command.kind == Command::Kind::kCanary;
  if (canary) add(*current_);
  for (const auto& sequence : live.all()) {
    if (sequence->ended || (!canary && command.same_scope(*sequence))) continue;
    switch (command.in_flight) {
      case InFlight::kPin:
        add(*sequence->view->table);
        break;
      case InFlight::kRestart:
        break;
    }
  }
  return layouts;
}

Status EpochBoard::blocked_status(const Command& command, const LiveSequences& live,
                                  const Layouts& after) const {
  const auto oldest = std::min_element(
      after.begin(), after.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  const auto held = std::count_if(live.all().begin(), live.all().end(), [&](const auto& sequence) {
    return !sequence->ended && sequence->view->table->layout().get() == oldest->first;
  });
  return {Code::kFailedPrecondition,
          fmt::format("publishing epoch {} would leave epochs of {} sets of modules in use (limit "
                      "{}, max_live_epochs); the oldest, epoch {}, is held by {} sequence{}",
                      command.table->epoch(), after.size(), max_live_epochs_, oldest->second, held,
                      held == 1 ? "" : "s"),
          "wait for these sequences to end, cancel them, or publish with in_flight: restart"};
}

void EpochBoard::set_current(std::shared_ptr<const RoutingTable> next) {
  reaper_->take(std::exchange(current_, next));
  {
    const MutexLock lock(mutex_);
    table_.swap(next);
  }
  reaper_->take(std::move(next));
}

}  // namespace chimera
