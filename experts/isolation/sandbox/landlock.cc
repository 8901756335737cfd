// Landlock (Linux 5.13): the file system, TCP and signals, by raw system calls, as glibc has none.
#include <fcntl.h>
#include <linux/landlock.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "experts/isolation/sandbox/sandbox.h"

namespace chimera {
namespace {

/// landlock_ruleset_attr as of version 6; older kernels want it shorter. Debian's header stops at
/// version 1.
struct RulesetAttributes {
  uint64_t files = 0;   // since 1
  uint64_t ports = 0;   // since 4
  uint64_t scopes = 0;  // since 6
};

constexpr uint64_t kBindAndConnectTcp = 3;
constexpr uint64_t kAbstractSocketsAndSignals = 3;

/// All rights on files that a version knows: 13 bits, and REFER, TRUNCATE, IOCTL_DEV since.
uint64_t file_rights(int abi) {
  const int bits = abi >= 5 ? 16 : abi >= 3 ? 15 : abi == 2 ? 14 : 13;
  return (uint64_t{1} << bits) - 1;
}

size_t attributes_size(int abi) { return abi >= 6 ? sizeof(RulesetAttributes) : abi >= 4 ? 16 : 8; }

int allow_reading(int ruleset, const std::string& path) {
  const int fd = open(path.c_str(), O_PATH | O_CLOEXEC);
  if (fd < 0) return 0;  // not there: nothing to allow
  struct stat info {};
  const bool directory = fstat(fd, &info) == 0 && S_ISDIR(info.st_mode);
  landlock_path_beneath_attr rule{};
  rule.allowed_access =
      LANDLOCK_ACCESS_FS_READ_FILE | (directory ? LANDLOCK_ACCESS_FS_READ_DIR : 0);
  rule.parent_fd = fd;
  const long done = syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
  const int error = done == 0 ? 0 : errno;
  close(fd);
  return error;
}

}  // namespace

int restrict_files(const std::vector<std::string>& directories, int* abi) {
  const long version =
      syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION);
  if (version < 1) return version < 0 ? errno : ENOSYS;
  *abi = static_cast<int>(version);
  RulesetAttributes attributes{file_rights(*abi), *abi >= 4 ? kBindAndConnectTcp : 0,
                               *abi >= 6 ? kAbstractSocketsAndSignals : 0};
  const auto ruleset =
      static_cast<int>(syscall(SYS_landlock_create_ruleset, &attributes, attributes_size(*abi), 0));
  if (ruleset < 0) return errno;
  int error = 0;
  for (const std::string& path : directories) {
    if (error == 0) error = allow_reading(ruleset, path);
  }
  if (error == 0 && syscall(SYS_landlock_restrict_self, ruleset, 0) != 0) error = errno;
  close(ruleset);
  return error;
}

}  // namespace chimera
