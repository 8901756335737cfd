// Signals of a program that serves until it is told to stop, on a thread that waits for them.
//
// Thread safety: construct first in main, before other threads start; the callbacks run on its
// thread.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <thread>

namespace chimera::gateway {

class StopSignals {
 public:
  struct Actions {
    std::function<void()> drain;   // at the first signal that asks to stop
    std::function<void()> stop;    // at the second, or when draining took too long
    std::function<void()> reload;  // SIGHUP
  };

  /// Blocks the signals in this thread and all that it starts from now on.
  StopSignals();
  /// Ends the waiting.
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  void start(Actions actions, std::chrono::seconds drain_limit);
  /// Ends the waiting: no callback runs afterwards.
  void stop();

 private:
  std::atomic<bool> done_{false};
  std::thread thread_;
};

}  // namespace chimera::gateway
