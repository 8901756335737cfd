#include "daemon/shutdown.h"

#include "base/log/log.h"

namespace chimera {

bool drain(Server& server, Engine& engine, Signals& signals) {
  using Clock = std::chrono::steady_clock;
  server.drain();
  const auto deadline = Clock::now() + kDrainLimit;
  constexpr std::chrono::milliseconds kSlice{50};
  while (!engine.drain(kSlice) || !server.await_records(kSlice)) {
    if (signals.stop_requested()) return false;
    if (Clock::now() < deadline) continue;
    // Requests that are left are told by the server; changes whose records are not there are not.
    if (!server.await_records(kSlice)) {
      log::warning("answers_lost", {{"reason", "the disk did not take the record of changes"},
                                    {"waited_s", kDrainLimit.count()}});
    }
    return true;
  }
  return true;
}

}  // namespace chimera
