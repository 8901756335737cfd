// How much memory this process may use: the machine's, or what a container or the system grants.
//
// Thread safety: free functions, from any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace chimera {

/// Where the kernel tells; tests put directories of their own in their place.
struct MemoryFiles {
  std::string proc = "/proc";
  std::string cgroup = "/sys/fs/cgroup";
};

/// Source of a limit of address space, which counts what is reserved and never touched, too.
inline constexpr std::string_view kAddressSpace = "RLIMIT_AS";

struct MemoryLimit {
  uint64_t bytes = 0;
  std::string source;  // "physical memory", "cgroup /a/b (memory.max)", "RLIMIT_AS"
};

/// The tightest of physical memory, the limits of this process's control groups and of all above
/// them (version 2: memory.max; version 1: memory.limit_in_bytes), and RLIMIT_AS. bytes is 0 where
/// the kernel tells nothing.
MemoryLimit memory_limit(const MemoryFiles& files = {});

/// What could be taken right now: MemAvailable of the machine, or less where a control group leaves
/// less (its limit, less what it uses but for file pages that the kernel can drop). nullopt where
/// the kernel tells nothing.
std::optional<uint64_t> available_memory(const MemoryFiles& files = {});

}  // namespace chimera
