// The end of a daemon: live requests may finish, within a limit.
//
// Thread safety: by the main thread.
#pragma once

#include <chrono>

#include "daemon/engine/engine.h"
#include "daemon/server/server.h"
#include "daemon/signals.h"

namespace chimera {

// Together at most 30 s from the first signal to the exit (reliability R15).
inline constexpr std::chrono::seconds kDrainLimit{27};
inline constexpr std::chrono::seconds kStopLimit{2};

/// Lets live requests finish, and the records of changes come to the disk, for which their answers
/// wait. False when a second signal came first.
bool drain(Server& server, Engine& engine, Signals& signals);

}  // namespace chimera
