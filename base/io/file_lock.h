// A lock file that one process at a time holds (flock), with its pid inside for messages.
//
// The kernel drops the lock with the process, so nothing is left locked after kill -9. The file
// itself stays: unlinking it would let two processes lock two files of one name.
//
// Thread safety: take() from any thread, which another take() of this process keeps out as well; an
// object by one thread.
#pragma once

#include <string>

#include "base/status.h"

namespace chimera {

class FileLock {
 public:
  /// `what` names the protected thing in messages. failed_precondition when somebody else holds
  /// it, naming the process.
  static Result<FileLock> take(const std::string& path, const std::string& what);
  FileLock(FileLock&& other) noexcept;
  FileLock& operator=(FileLock&&) = delete;
  ~FileLock();

 private:
  explicit FileLock(int fd) : fd_(fd) {}
  int fd_;
};

}  // namespace chimera
