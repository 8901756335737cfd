// What a plugin could leave behind in the process: a snapshot, and the difference of two.
//
// Thread safety: pure functions; they look at the whole process.
#pragma once

#include <map>
#include <string>

#include "check/cases/case.h"

namespace chimera::check {

/// What it is ("environment variable FOO") to what it says ("bar").
using ProcessState = std::map<std::string, std::string>;

/// Threads, descriptors, signal handlers and mask, environment, working directory, locale, umask,
/// floating-point control, timers, and how much was printed.
ProcessState process_state(int output_fd);

/// One sentence part per difference, e.g. "new thread 4711; descriptor 5 is gone"; empty: none.
/// Waits up to 200 ms for threads that are about to end.
std::string state_difference(const ProcessState& before, int output_fd);

/// Memory of the process: for growth over many rounds.
struct MemoryUse {
  uint64_t heap_bytes = 0;    // in use, by malloc
  uint64_t mapped_bytes = 0;  // virtual size
  uint64_t mappings = 0, descriptors = 0, threads = 0;
};
MemoryUse memory_use();

/// What grew from `before` to `after` over `rounds` rounds; empty: nothing that grows with them.
std::string growth(const MemoryUse& before, const MemoryUse& after, uint64_t rounds);

}  // namespace chimera::check
