#include "base/threads/cpu_count.h"

#include <sched.h>

#include <algorithm>
#include <sstream>
#include <thread>

#include "base/control_group.h"
#include "base/threads/thread_pool.h"

namespace chimera {
namespace {

int cpus_of(double quota_us, double period_us) {
  if (!(quota_us > 0) || !(period_us > 0)) return 0;
  return static_cast<int>(std::clamp(quota_us / period_us, 1.0, 4096.0));
}

/// The smaller of two limits, where 0 means none.
int tighter(int a, int b) {
  if (a == 0) return b;
  if (b == 0) return a;
  return std::min(a, b);
}

/// cpu.max: "200000 100000" or "max 100000".
int quota_v2(const std::string& file) {
  std::istringstream text(read_kernel_file(file));
  double quota = 0;
  double period = 0;
  if (!(text >> quota >> period)) return 0;
  return cpus_of(quota, period);
}

int quota_v1(const std::string& dir) {
  std::istringstream quota_text(read_kernel_file(dir + "/cpu.cfs_quota_us"));
  std::istringstream period_text(read_kernel_file(dir + "/cpu.cfs_period_us"));
  double quota = 0;
  double period = 0;
  if (!(quota_text >> quota) || !(period_text >> period)) return 0;
  return cpus_of(quota, period);  // -1 = no limit
}

int quota_v2_upwards(const std::string& root, std::string group) {
  int limit = 0;
  for (;;) {
    limit = tighter(limit, quota_v2(root + group + "/cpu.max"));
    const size_t slash = group.rfind('/');
    if (slash == std::string::npos) return limit;
    group.resize(slash);
  }
}

/// CPUs in the affinity mask, for machines of any size.
int affinity_cpus() {
  for (int cpus = 1024; cpus <= 1 << 20; cpus *= 2) {
    cpu_set_t* set = CPU_ALLOC(static_cast<size_t>(cpus));
    if (set == nullptr) return 0;
    const size_t bytes = CPU_ALLOC_SIZE(static_cast<size_t>(cpus));
    const bool ok = sched_getaffinity(0, bytes, set) == 0;
    const int count = ok ? CPU_COUNT_S(bytes, set) : 0;
    CPU_FREE(set);
    if (ok) return count;
  }
  return 0;
}

}  // namespace

int cgroup_cpu_quota(std::string_view proc_cgroup, const std::string& root) {
  int limit = 0;
  while (!proc_cgroup.empty()) {
    const size_t end = std::min(proc_cgroup.find('\n'), proc_cgroup.size());
    const std::string_view line = proc_cgroup.substr(0, end);
    proc_cgroup.remove_prefix(std::min(end + 1, proc_cgroup.size()));
    const size_t first = line.find(':');
    const size_t second = first == std::string_view::npos ? first : line.find(':', first + 1);
    if (second == std::string_view::npos) continue;
    const std::string_view controllers = line.substr(first + 1, second - first - 1);
    std::string group(line.substr(second + 1));
    if (group == "/") group.clear();
    if (controllers.empty()) {
      limit = tighter(limit, quota_v2_upwards(root, group));
    } else if (names_controller(controllers, "cpu")) {
      limit = tighter(limit, quota_v1(root + "/cpu" + group));
      // Inside a container the group's path is often the host's; its own files are at the top.
      limit = tighter(limit, quota_v1(root + "/cpu"));
    }
  }
  return limit;
}

int auto_threads() {
  const int affinity = affinity_cpus();
  const int cpus = affinity > 0 ? affinity : static_cast<int>(std::thread::hardware_concurrency());
  const int quota = cgroup_cpu_quota(read_kernel_file("/proc/self/cgroup"), "/sys/fs/cgroup");
  return std::max(1, tighter(cpus, quota));
}

}  // namespace chimera
