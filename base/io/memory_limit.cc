#include "base/io/memory_limit.h"

#include <sys/resource.h>

#include <algorithm>
#include <sstream>
#include <vector>

#include "base/control_group.h"

namespace chimera {
namespace {

/// The number at the start of a file; nothing for "max" or no file.
std::optional<uint64_t> number_in(const std::string& path) {
  std::istringstream text(read_kernel_file(path));
  uint64_t number = 0;
  if (!(text >> number)) return std::nullopt;
  return number;
}

/// The number after `key` in lines of "key number …".
std::optional<uint64_t> field_in(const std::string& path, std::string_view key) {
  std::istringstream lines(read_kernel_file(path));
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string word;
    uint64_t number = 0;
    if (words >> word && word == key && words >> number) return number;
  }
  return std::nullopt;
}

std::optional<uint64_t> meminfo(const MemoryFiles& files, std::string_view key) {
  const auto kib = field_in(files.proc + "/meminfo", key);
  if (!kib) return std::nullopt;
  return *kib * 1024;
}

/// A control group with a memory limit.
struct Group {
  std::string path;  // below the root
  const char* file = nullptr;
  uint64_t limit = 0;
  uint64_t used = 0;  // without file pages that can be dropped
};

// Version 1 says "no limit" by a number just below 2^63.
constexpr uint64_t kNoLimit = 1ull << 62;

void add_group(std::vector<Group>& out, const std::string& root, const std::string& path,
               bool version2) {
  const std::string dir = root + path;
  const char* file = version2 ? "memory.max" : "memory.limit_in_bytes";
  const auto limit = number_in(dir + "/" + file);
  if (!limit || *limit >= kNoLimit) return;
  const auto used =
      number_in(dir + (version2 ? "/memory.current" : "/memory.usage_in_bytes")).value_or(0);
  const auto droppable =
      field_in(dir + "/memory.stat", version2 ? "inactive_file" : "total_inactive_file")
          .value_or(0);
  out.push_back({path.empty() ? "/" : path, file, *limit, used - std::min(used, droppable)});
}

/// The group and all above it. Inside a container its path is often the host's, and its own files
/// are at the top: that one is always among them.
void add_upwards(std::vector<Group>& out, const std::string& root, std::string path,
                 bool version2) {
  if (path == "/") path.clear();
  for (;;) {
    add_group(out, root, path, version2);
    const size_t slash = path.rfind('/');
    if (slash == std::string::npos) return;
    path.resize(slash);
  }
}

std::vector<Group> limited_groups(const MemoryFiles& files) {
  std::vector<Group> out;
  std::istringstream lines(read_kernel_file(files.proc + "/self/cgroup"));
  for (std::string line; std::getline(lines, line);) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string path = line.substr(second + 1);
    if (controllers.empty())
      add_upwards(out, files.cgroup, path, true);
    else if (names_controller(controllers, "memory"))
      add_upwards(out, files.cgroup + "/memory", path, false);
  }
  return out;
}

}  // namespace

MemoryLimit memory_limit(const MemoryFiles& files) {
  MemoryLimit limit;
  const auto tighten = [&](uint64_t bytes, std::string source) {
    if (bytes == 0 || (limit.bytes != 0 && limit.bytes <= bytes)) return;
    limit = {bytes, std::move(source)};
  };
  tighten(meminfo(files, "MemTotal:").value_or(0), "physical memory");
  for (const Group& group : limited_groups(files)) {
    tighten(std::max<uint64_t>(group.limit, 1),
            "control group " + group.path + " (" + group.file + ")");
  }
  rlimit space{};
  if (getrlimit(RLIMIT_AS, &space) == 0 && space.rlim_cur != RLIM_INFINITY)
    tighten(space.rlim_cur, std::string(kAddressSpace));
  return limit;
}

std::optional<uint64_t> available_memory(const MemoryFiles& files) {
  std::optional<uint64_t> least = meminfo(files, "MemAvailable:");
  for (const Group& group : limited_groups(files)) {
    const uint64_t left = group.limit - std::min(group.limit, group.used);
    least = least ? std::min(*least, left) : left;
  }
  return least;
}

}  // namespace chimera
