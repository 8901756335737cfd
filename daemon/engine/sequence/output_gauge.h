// OutputGauge: bytes of large answers (logits, routing) of one account, from the moment their
// computation begins until the last of them left the daemon.
//
// Thread safety: all methods may be called from any thread; holds end on those of the sockets.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>

#include "base/threads/mutex.h"

namespace chimera {

class OutputGauge {
 public:
  /// `freed` is called after each hold that ended, until disconnect().
  explicit OutputGauge(std::function<void()> freed) : freed_(std::move(freed)) {}

  uint64_t held() const {
    const MutexLock lock(mutex_);
    return held_;
  }
  void disconnect() {
    const MutexLock lock(mutex_);
    freed_ = nullptr;
  }

 private:
  friend class OutputHold;
  void add(uint64_t bytes) {
    const MutexLock lock(mutex_);
    held_ += bytes;
  }
  void remove(uint64_t bytes) {
    const MutexLock lock(mutex_);
    held_ -= bytes;
    // Under the mutex, so that disconnect() leaves no call behind.
    if (freed_) freed_();
  }

  mutable Mutex mutex_;
  uint64_t held_ GUARDED_BY(mutex_) = 0;
  std::function<void()> freed_ GUARDED_BY(mutex_);
};

/// Counts its bytes while it lives.
class OutputHold {
 public:
  OutputHold(std::shared_ptr<OutputGauge> gauge, uint64_t bytes)
      : gauge_(std::move(gauge)), bytes_(bytes) {
    gauge_->add(bytes_);
  }
  ~OutputHold() { gauge_->remove(bytes_); }
  OutputHold(const OutputHold&) = delete;
  OutputHold& operator=(const OutputHold&) = delete;

 private:
  const std::shared_ptr<OutputGauge> gauge_;
  const uint64_t bytes_;
};

}  // namespace chimera
