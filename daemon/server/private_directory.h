// A directory of the daemon's own for sockets between its parts. Its files are named through the
// open directory, so their paths are short whatever its own is.
//
// Thread safety: made by one thread, then only read.
#pragma once

#include <memory>
#include <string>

#include "base/status.h"
#include "daemon/front/listener.h"

namespace chimera {

class PrivateDirectory {
 public:
  /// Made 0700 when missing. permission_denied when it is another's, or others may enter it.
  static Result<std::unique_ptr<PrivateDirectory>> open(const std::string& path);
  ~PrivateDirectory();
  PrivateDirectory(const PrivateDirectory&) = delete;
  PrivateDirectory& operator=(const PrivateDirectory&) = delete;

  /// "/proc/self/fd/7/NAME", for this process alone.
  std::string path_of(const std::string& name) const;

 private:
  PrivateDirectory(std::string path, OwnedFd fd) : path_(std::move(path)), fd_(std::move(fd)) {}
  const std::string path_;
  const OwnedFd fd_;
};

}  // namespace chimera
