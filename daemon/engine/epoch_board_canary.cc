// Canaries of the board: begun, withdrawn.
#include <algorithm>
#include <utility>

#include "daemon/engine/epoch_board.h"

namespace chimera {

Status EpochBoard::publish_canary(std::shared_ptr<const RoutingTable> table, double fraction,
                                  std::chrono::milliseconds timeout) {
  if (!table) return {Code::kInvalidArgument, "a canary needs a routing table"};
  auto command = std::make_shared<Command>();
  command->kind = Command::Kind::kCanary;
  command->table = std::move(table);
  command->fraction = fraction;
  command->deadline =
      Clock::now() + std::min<std::chrono::milliseconds>(timeout, std::chrono::hours(24));
  return execute(std::move(command));
}

Status EpochBoard::withdraw_canary() {
  auto command = std::make_shared<Command>();
  command->kind = Command::Kind::kWithdraw;
  return execute(std::move(command));
}

Status EpochBoard::withdraw_now(Command& command, LiveSequences& live) {
  if (canary_ == nullptr) return {};
  command.table = current_;
  for (const auto& sequence : live.all()) {
    if (sequence->ended || sequence->view->table != canary_) continue;
    if (command.same_scope(*sequence)) {
      live.move(*sequence, command.moved_view(*sequence));
    } else {
      live.restart(*sequence, command.view_for(*sequence));
    }
  }
  set_canary(nullptr, 0.0);
  return {};
}

void EpochBoard::set_canary(std::shared_ptr<const RoutingTable> next, double fraction) {
  reaper_->take(std::exchange(canary_, next));
  fraction_ = fraction;
  {
    const MutexLock lock(mutex_);
    canary_table_.swap(next);
    canary_fraction_ = fraction;
  }
  reaper_->take(std::move(next));
}

}  // namespace chimera
