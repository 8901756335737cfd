// SIGTERM and SIGINT as events that main waits for, instead of handlers that interrupt anything.
//
// Thread safety: request_stop() from any thread, the rest from main.
#pragma once

#include <chrono>
#include <optional>

namespace chimera {

class StopSignals {
 public:
  /// Blocks the signals in this thread and all it starts from now on: construct first in main.
  /// SIGPIPE is ignored (a closed log pipe is no reason to stop).
  StopSignals();

  /// Number of the next signal, waiting for it.
  int wait();
  /// The next signal within `timeout`, if any.
  std::optional<int> wait_for(std::chrono::milliseconds timeout);
  /// As if the process had received SIGTERM.
  void request_stop();
  /// Ends the process with `exit_status` after `limit` if it still runs then: whatever an
  /// orderly stop hangs on, the state directory survives without it.
  void exit_within(std::chrono::seconds limit, int exit_status);
};

}  // namespace chimera
