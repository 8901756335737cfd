// LateRecord: writes a record that could not be written when it should have been, until it can be.
//
// A revocation does not wait for a disk: it takes effect, and its record follows.
//
// Thread safety: begin() from any thread; `write` is called on a thread of its own.
#pragma once

#include <chrono>
#include <functional>
#include <thread>

#include "base/status.h"
#include "base/threads/mutex.h"

namespace chimera {

class LateRecord {
 public:
  /// `write` says whether there is nothing left to write. It may lock what the owner locks.
  LateRecord(std::function<Status()> write, std::chrono::milliseconds interval)
      : write_(std::move(write)), interval_(interval) {}
  /// Gives up.
  ~LateRecord();
  LateRecord(const LateRecord&) = delete;
  LateRecord& operator=(const LateRecord&) = delete;

  /// Tries from now on, again and again.
  void begin();

 private:
  void run();

  const std::function<Status()> write_;
  const std::chrono::milliseconds interval_;
  Mutex mutex_;
  CondVar wake_;
  bool wanted_ GUARDED_BY(mutex_) = false;
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::thread thread_ GUARDED_BY(mutex_);  // since the first begin()
};

}  // namespace chimera
