#include "base/io/sealed_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <thread>

#include "base/io/env.h"

namespace chimera {
namespace {

constexpr int kAllSeals = F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL;
constexpr std::chrono::milliseconds kSealPause{5};
constexpr int kSealTries = 100;

Status write_all(int fd, std::span<const std::byte> bytes) {
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t n = ::write(fd, bytes.data() + done, bytes.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return errno_status("copying a library into memory", n < 0 ? errno : ENOSPC);
    done += static_cast<size_t>(n);
  }
  return {};
}

}  // namespace

Status seal_memory_file(int fd, const std::string& what) {
  for (int left = kSealTries; ::fcntl(fd, F_ADD_SEALS, kAllSeals) != 0; --left) {
    if (errno != EBUSY || left == 1) return errno_status(what, errno);
    std::this_thread::sleep_for(kSealPause);
  }
  return {};
}

Result<SealedFile> SealedFile::create(const std::string& name, std::span<const std::byte> bytes) {
  const int fd = ::memfd_create(name.substr(0, 200).c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return errno_status("memory file for a library", errno);
  SealedFile file(fd, bytes.size(), name);
  CHIMERA_RETURN_IF_ERROR(write_all(fd, bytes));
  CHIMERA_RETURN_IF_ERROR(seal_memory_file(fd, "sealing a library in memory"));
  return file;
}

Result<SealedFile> SealedFile::adopt(int fd_owned, const std::string& name) {
  SealedFile file(fd_owned, 0, name);
  struct stat info {};
  const int seals = ::fcntl(fd_owned, F_GET_SEALS);
  if (seals < 0 || (seals & kAllSeals) != kAllSeals || ::fstat(fd_owned, &info) != 0) {
    return Status(Code::kDataCorrupt, name + ": found no sealed memory file (expected one)");
  }
  file.size_ = static_cast<uint64_t>(info.st_size);
  return file;
}

SealedFile::~SealedFile() {
  if (fd_ >= 0) ::close(fd_);
}

// "/proc/self/fd/" and the number, with the generation spelled in between as one "./" or "/" per
// bit: the kernel ignores both, the loader's comparison of names does not. Two generations differ
// in a bit, or in length, whatever the descriptor.
std::string SealedFile::unique_path(uint64_t generation) const {
  std::string path = "/proc/self/fd/";
  for (; generation != 0; generation >>= 1) path += (generation & 1) != 0 ? "./" : "/";
  return path + std::to_string(fd_);
}

}  // namespace chimera
