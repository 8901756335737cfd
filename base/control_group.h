// Small files of the kernel that say what a control group may use.
//
// Thread safety: free functions.
#pragma once

#include <string>
#include <string_view>

namespace chimera {

/// All of a file of /proc or /sys; "" when it cannot be read.
std::string read_kernel_file(const std::string& path);

/// Whether `controller` is in the list of a line of /proc/self/cgroup, "cpu,cpuacct".
bool names_controller(std::string_view controllers, std::string_view controller);

}  // namespace chimera
