// Which threads this process has.
//
// The kernel wakes whoever joins a thread before it takes the thread out of /proc, so a count of
// the entries there counts threads that are over. These functions leave them out: after join() has
// returned the thread is not among them.
//
// Thread safety: any thread may call them.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace chimera {

struct LiveThread {
  pid_t id = 0;
  std::string name;  // at most 15 bytes, as pthread_setname_np gave it
};

/// Threads of this process that have not begun to end, the calling one included; empty without
/// /proc.
std::vector<LiveThread> live_threads();

}  // namespace chimera
