// How many CPUs a container really grants; behind auto_threads().
//
// Thread safety: free function, from any thread.
#pragma once

#include <string>
#include <string_view>

namespace chimera {

/// CPUs granted by the CPU bandwidth controller, at least 1 and rounded down, or 0 for no limit.
/// `proc_cgroup` is the text of /proc/self/cgroup; the controller files are looked for below
/// `root` ("/sys/fs/cgroup"), for version 2 in the process's group and all groups above it.
int cgroup_cpu_quota(std::string_view proc_cgroup, const std::string& root);

}  // namespace chimera
