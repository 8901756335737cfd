#include "base/io/file_lock.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cctype>
#include <cerrno>
#include <utility>

#include "base/io/env.h"

namespace chimera {
namespace {

// The pid inside the file, "" when there is none (its holder is about to write it).
std::string read_pid(int fd) {
  char text[24];
  const ssize_t n = pread(fd, text, sizeof(text), 0);
  std::string pid;
  for (ssize_t i = 0; i < n && std::isdigit(static_cast<unsigned char>(text[i])); ++i) {
    pid += text[i];
  }
  return pid;
}

}  // namespace

Result<FileLock> FileLock::take(const std::string& path, const std::string& what) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return errno_status(path, errno);
  FileLock lock(fd);
  if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return errno_status(path + ": flock", errno);
    const std::string pid = read_pid(fd);
    return Status(Code::kFailedPrecondition,
                  fmt::format("{}: in use by process {} (expected to be free)", what,
                              pid.empty() ? "of unknown number" : pid),
                  "Stop the other daemon or give this one its own");
  }
  // Only a message depends on the pid, so a full disk does not keep the daemon from starting.
  const std::string pid = fmt::format("{}\n", getpid());
  if (ftruncate(fd, 0) == 0) (void)!pwrite(fd, pid.data(), pid.size(), 0);
  return lock;
}

FileLock::FileLock(FileLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

FileLock::~FileLock() {
  if (fd_ >= 0) ::close(fd_);
}

}  // namespace chimera
