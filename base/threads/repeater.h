// Repeater: does something again and again on a thread of its own, until it is done.
//
// Thread safety: begin() and stop() from any thread; `attempt` is called on the Repeater's own.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <thread>

#include "base/threads/mutex.h"

namespace chimera {

class Repeater {
 public:
  /// `attempt` says whether it is done. It may lock what the owner locks. `name`: of the thread, at
  /// most 15 characters.
  Repeater(std::string name, std::chrono::milliseconds interval, std::function<bool()> attempt)
      : name_(std::move(name)), interval_(interval), attempt_(std::move(attempt)) {}
  ~Repeater() { stop(); }
  Repeater(const Repeater&) = delete;
  Repeater& operator=(const Repeater&) = delete;

  /// An interval from now, and every interval from then on, until it is done.
  void begin();
  /// No more, for good. Not to be called by `attempt`.
  void stop();

 private:
  void run();

  const std::string name_;
  const std::chrono::milliseconds interval_;
  const std::function<bool()> attempt_;
  Mutex mutex_;
  CondVar wake_;
  bool wanted_ GUARDED_BY(mutex_) = false;
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::thread thread_ GUARDED_BY(mutex_);  // since the first begin()
};

}  // namespace chimera
