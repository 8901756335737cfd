// Signals as events that main waits for, instead of handlers that interrupt anything.
//
// SIGHUP asks to read the deployment again. Every other signal whose default would end the process
// asks to stop (SIGTERM, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, …), except those that tell of a failed
// write, which are ignored: the write itself reports it.
//
// Thread safety: request_stop() from any thread, the rest from main.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

namespace chimera {

/// What a signal asks for.
enum class Wish : uint8_t { kStop, kReload };

struct ReceivedSignal {
  Wish wish = Wish::kStop;
  std::string name;  // "SIGTERM"
};

class Signals {
 public:
  /// Blocks the signals in this thread and all it starts from now on: construct first in main.
  Signals();

  /// The next signal, waiting for it.
  ReceivedSignal wait();
  /// Whether a signal that asks to stop came. One that asks to reload is left for wait().
  bool stop_requested();
  /// As if the process had received SIGTERM.
  void request_stop();
  /// Ends the process with `exit_status` after `limit` if it still runs then: whatever an
  /// orderly stop hangs on, the state directory survives without it.
  void exit_within(std::chrono::seconds limit, int exit_status);
};

}  // namespace chimera
