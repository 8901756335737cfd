// Doorbell: wakes the engine thread when there is something to do.
//
// A ring is remembered until somebody waits, so one that comes between "nothing to do" and wait()
// is not lost.
//
// Thread safety: ring() from any thread, wait() from one.
#pragma once

#include <chrono>

#include "base/threads/mutex.h"

namespace chimera {

class Doorbell {
 public:
  void ring() {
    {
      const MutexLock lock(mutex_);
      rung_ = true;
    }
    changed_.notify_one();
  }

  /// Returns once it was rung since the last wait.
  void wait() {
    const MutexLock lock(mutex_);
    changed_.wait(mutex_, [this]() REQUIRES(mutex_) { return rung_; });
    rung_ = false;
  }
  /// The same, or once `time` has come.
  void wait_until(std::chrono::steady_clock::time_point time) {
    const MutexLock lock(mutex_);
    changed_.wait_for(mutex_, time - std::chrono::steady_clock::now(),
                      [this]() REQUIRES(mutex_) { return rung_; });
    rung_ = false;
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  bool rung_ GUARDED_BY(mutex_) = false;
};

}  // namespace chimera
