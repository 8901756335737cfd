// What a module costs to load that lies in the page cache, beside what its bytes cost at least.
//
// Thread safety: free functions, by the main thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "daemon_process.h"
#include "session.h"

namespace chimera::bench {

/// One round.
struct HotLoad {
  uint64_t bytes = 0;   // of its files, module.yaml aside
  uint64_t files = 0;   // of these
  double read_ms = 0;   // all of them once, by read() into one small buffer
  double hash_ms = 0;   // SHA-256 of all of them, in memory, side by side on all CPUs
  double touch_ms = 0;  // as much fresh memory written, on all CPUs: a load copies them into some
  double first_ms = 0;  // from `load` to the first token on the new epoch
  double cpu_ms = 0;    // of the daemon in that time, on all CPUs together
  double again_ms = 0;  // as first_ms, once the daemon has seen these bytes
};

/// REQUIRES: the daemon has not loaded these bytes before. Throws std::runtime_error.
HotLoad hot_load(Session& session, const DaemonProcess& daemon, const std::string& module);
void print_hot_loads(const std::vector<HotLoad>& rounds);

}  // namespace chimera::bench
