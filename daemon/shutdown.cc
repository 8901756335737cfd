#include "daemon/shutdown.h"

namespace chimera {

bool drain(Server& server, Engine& engine, Signals& signals) {
  using Clock = std::chrono::steady_clock;
  server.drain();
  const auto deadline = Clock::now() + kDrainLimit;
  while (!engine.drain(std::chrono::milliseconds(50))) {
    if (signals.stop_requested()) return false;
    if (Clock::now() >= deadline) return true;  // what is left is told by the server
  }
  return true;
}

}  // namespace chimera
