#include "daemon/registry/reading_turns.h"

#include <fmt/format.h>

#include "base/threads/progress.h"

namespace chimera {

Status ReadingTurns::begin(bool alone, const std::string& module) {
  const MutexLock lock(mutex_);
  if (alone) ++waiting_alone_;
  const Status status = wait(alone, module);
  if (alone) --waiting_alone_;
  if (!status.ok()) {
    changed_.notify_all();  // those beside may have waited for this one
    return status;
  }
  if (alone) {
    alone_ = true;
    alone_module_ = module;
    alone_since_ = Clock::now();
  } else {
    ++beside_;
  }
  return {};
}

Status ReadingTurns::wait(bool alone, const std::string& module) {
  // How often who waits looks whether it is still worth it.
  constexpr std::chrono::milliseconds kEvery{50};
  while (!free(alone)) {
    if (work_given_up()) return {Code::kCancelled, "module " + module + ": given up"};
    if (alone && overdue()) {
      return {Code::kUnavailable,
              fmt::format(
                  "module {}: module {} has not been loaded inside the daemon for {} ms "
                  "(expected less than {}, libraries.max_load_ms of the deployment)",
                  module, alone_module_,
                  std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - alone_since_)
                      .count(),
                  most_.count()),
              "It cannot be ended: restart the daemon without it, or give it isolation: process."};
    }
    changed_.wait_for(mutex_, kEvery, [&]() REQUIRES(mutex_) { return free(alone); });
  }
  return {};
}

void ReadingTurns::end(bool alone) {
  const MutexLock lock(mutex_);
  if (alone) {
    alone_ = false;
  } else {
    --beside_;
  }
  changed_.notify_all();
}

}  // namespace chimera
