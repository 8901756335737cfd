#include "daemon/server/private_directory.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/io/env.h"

namespace chimera {

Result<std::unique_ptr<PrivateDirectory>> PrivateDirectory::open(const std::string& path) {
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return errno_status(path, errno);
  OwnedFd fd(::open(path.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  struct stat info {};
  if (!fd.valid() || ::fstat(fd.get(), &info) != 0) return errno_status(path, errno);
  if (info.st_uid != ::geteuid() || (info.st_mode & 077) != 0) {
    return Status(Code::kPermissionDenied,
                  fmt::format("{}: found owner {} and mode {:04o} (expected {} and 0700)", path,
                              info.st_uid, info.st_mode & 07777, ::geteuid()),
                  "remove it; the daemon makes it anew");
  }
  return std::unique_ptr<PrivateDirectory>(new PrivateDirectory(path, std::move(fd)));
}

PrivateDirectory::~PrivateDirectory() { ::rmdir(path_.c_str()); }

std::string PrivateDirectory::path_of(const std::string& name) const {
  return fmt::format("/proc/self/fd/{}/{}", fd_.get(), name);
}

}  // namespace chimera
