#include "experts/isolation/sandbox/sandbox.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/capability.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

extern char** environ;

namespace chimera {
namespace {

// While loading: the library, what it needs, a few descriptors of the loader.
constexpr rlim_t kLoadingFiles = 64;
// While serving: 0, 1, 2, the socket, and room to close things.
constexpr rlim_t kServingFiles = 16;
// How much sooner than others the kernel ends this process when memory runs out; -1000 to 1000.
constexpr const char* kOutOfMemoryScore = "500";

std::string reason(int error) { return std::strerror(error); }

bool limit(__rlimit_resource resource, rlim_t value) {
  rlimit now{};
  if (getrlimit(resource, &now) != 0) return false;
  const rlimit wanted{std::min(value, now.rlim_max), std::min(value, now.rlim_max)};
  return setrlimit(resource, &wanted) == 0;
}

bool drop_capabilities() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct none[2] = {};
  return syscall(SYS_capset, &header, none) == 0;
}

bool volunteer_as_victim() {
  const int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const auto n = static_cast<ssize_t>(std::strlen(kOutOfMemoryScore));
  const bool done = write(fd, kOutOfMemoryScore, static_cast<size_t>(n)) == n;
  close(fd);
  return done;
}

const std::vector<std::string>& readable_paths() {
  // /proc/self: the loader looks at what loading a library changed (process_state.h).
  static const std::vector<std::string> list = {
      "/lib",           "/lib64",           "/usr/lib",         "/usr/lib64",
      "/usr/local/lib", "/usr/local/lib64", "/etc/ld.so.cache", "/proc/self"};
  return list;
}

}  // namespace

void Sandbox::note(bool in_force, std::string what, const std::string& why_not) {
  if (!in_force && !why_not.empty()) what += " (" + why_not + ")";
  (in_force ? in_force_ : off_).push_back(std::move(what));
}

bool Sandbox::enter(int keep_fd, pid_t parent) {
  note(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "no-new-privs", reason(errno));
  note(prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) == 0, "dies-with-daemon", reason(errno));
  if (getppid() != parent) return false;
  note(environ == nullptr || environ[0] == nullptr, "empty-environment");
  // Up to the last possible number, two ranges around the one that stays.
  bool closed = keep_fd == 3 || syscall(SYS_close_range, 3, keep_fd - 1, 0) == 0;
  closed = closed && syscall(SYS_close_range, keep_fd + 1, ~0U, 0) == 0;
  note(closed, "closed-descriptors", reason(errno));
  note(volunteer_as_victim(), "first-out-of-memory");
  note(limit(RLIMIT_CORE, 0), "no-core");
  note(limit(RLIMIT_FSIZE, 0) && limit(RLIMIT_NOFILE, kLoadingFiles), "limits");
  return true;
}

void Sandbox::before_loading(uint64_t address_space) {
  if (kSanitizerBuild) {
    for (const char* what : {"address-space", "landlock", "seccomp"}) {
      note(false, what, "sanitizer build");
    }
    return;
  }
  note(limit(RLIMIT_AS, address_space), fmt::format("address-space ({} MiB)", address_space >> 20),
       reason(errno));
  int abi = 0;
  const int landlock = restrict_files(readable_paths(), &abi);
  note(landlock == 0, abi > 0 ? fmt::format("landlock ({})", abi) : "landlock", reason(landlock));
  int calls = 0;
  const int seccomp = restrict_calls(CallList::kLoading, &calls);
  note(seccomp == 0, "seccomp while loading", reason(seccomp));
}

void Sandbox::lock_down() {
  // Changing these is off the last list of calls, so they come first.
  note(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0, "not-dumpable", reason(errno));
  note(drop_capabilities(), "no-capabilities", reason(errno));
  note(limit(RLIMIT_NOFILE, kServingFiles) && limit(RLIMIT_NPROC, 0), "no-new-processes",
       reason(errno));
  if (kSanitizerBuild) return;
  int calls = 0;
  const int seccomp = restrict_calls(CallList::kServing, &calls);
  note(seccomp == 0, seccomp == 0 ? fmt::format("seccomp ({} calls)", calls) : "seccomp",
       reason(seccomp));
}

std::string Sandbox::report() const {
  std::string text = fmt::format("{}", fmt::join(in_force_, ", "));
  if (!off_.empty()) text += fmt::format("; off: {}", fmt::join(off_, ", "));
  return text;
}

}  // namespace chimera
