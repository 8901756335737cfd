#include "experts/library/loading_turn.h"

#include <fmt/format.h>

#include <optional>
#include <utility>

#include "base/threads/mutex.h"
#include "base/threads/progress.h"

namespace chimera {
namespace {

using Clock = std::chrono::steady_clock;

// How often who waits looks whether it is still worth it.
constexpr std::chrono::milliseconds kLook{50};

struct Holder {
  std::string module;
  Clock::time_point since;
};

struct Turns {
  Mutex mutex;
  CondVar given_back;
  std::optional<Holder> holder GUARDED_BY(mutex);
};

/// Of the process. Not destroyed: a call that hangs outlives all that could.
Turns& turns() {
  static auto* const all = new Turns;
  return *all;
}

}  // namespace

Result<LoadingTurn> LoadingTurn::take(const std::string& module, std::chrono::milliseconds most) {
  Turns& all = turns();
  const MutexLock lock(all.mutex);
  while (all.holder) {
    const auto held = Clock::now() - all.holder->since;
    if (held >= most) {
      return Status(
          Code::kUnavailable,
          fmt::format(
              "module {}: a call of module {} inside the daemon has not come back for {} ms "
              "(expected less than {}, libraries.max_load_ms of the deployment)",
              module, all.holder->module,
              std::chrono::duration_cast<std::chrono::milliseconds>(held).count(), most.count()),
          "It cannot be ended: restart the daemon without it, or give it isolation: process.");
    }
    if (work_given_up()) return Status(Code::kCancelled, "module " + module + ": given up");
    all.given_back.wait_for(all.mutex, kLook,
                            [&all]() REQUIRES(all.mutex) { return !all.holder.has_value(); });
  }
  all.holder = Holder{module, Clock::now()};
  return LoadingTurn();
}

LoadingTurn::LoadingTurn(LoadingTurn&& other) noexcept : held_(std::exchange(other.held_, false)) {}

LoadingTurn::~LoadingTurn() {
  if (!held_) return;
  Turns& all = turns();
  {
    const MutexLock lock(all.mutex);
    all.holder.reset();
  }
  all.given_back.notify_all();
}

}  // namespace chimera
