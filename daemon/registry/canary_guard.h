// CanaryGuard: looks at a canary while there is one.
//
// Thread safety: begin() and stop() from any thread; `look` is called on a thread of its own.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <thread>

#include "base/threads/mutex.h"
#include "daemon/config/config.h"
#include "daemon/engine/canary.h"

namespace chimera {

/// Which bound the canary has exceeded, "bits per byte: found 4.1 (expected at most 2.5)"; nothing
/// when none, or too little was seen yet.
std::optional<std::string> broken_bound(const CanaryBounds& bounds, const CanarySide& canary);

class CanaryGuard {
 public:
  /// `look` says whether there is anything left to look at. It may lock what the owner locks.
  CanaryGuard(std::function<bool()> look, std::chrono::milliseconds interval)
      : look_(std::move(look)), interval_(interval) {}
  ~CanaryGuard() { stop(); }
  CanaryGuard(const CanaryGuard&) = delete;
  CanaryGuard& operator=(const CanaryGuard&) = delete;

  /// Looks from now on.
  void begin();
  /// Looks no more. Not to be called by `look`.
  void stop();

 private:
  void run();

  const std::function<bool()> look_;
  const std::chrono::milliseconds interval_;
  Mutex mutex_;
  CondVar wake_;
  bool wanted_ GUARDED_BY(mutex_) = false;
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::thread thread_ GUARDED_BY(mutex_);  // since the first begin()
};

}  // namespace chimera
