// The line of the log about a request that has ended: who asked, what it took and how it ended.
//
// Thread safety: free function, on the IO thread.
#pragma once

#include "daemon/server/answers/live.h"

namespace chimera {

enum class Left : bool { kStayed, kGone };  // its client

/// At `info` for what the engine computes (`generate`, `chat`, `score`, `embed`), else at `debug`.
/// Never what was asked or answered, nor the id, which its client made up.
void log_end(const Live& live, Left client);

}  // namespace chimera
