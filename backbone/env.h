// Env: the system calls that loading and committing depend on, behind one virtual seam, so that
// tests can fail the N-th of them (ENOSPC, EIO, EMFILE, EINTR, short I/O).
//
// Thread safety: the default Env is stateless.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backbone/status.h"

namespace chimera {

class Env {
 public:
  virtual ~Env() = default;
  // Each returns what the system call of its name returns, with errno set on failure.
  virtual int open(const char* path, int flags, mode_t mode);
  virtual ssize_t read(int fd, void* buffer, size_t n);
  virtual ssize_t write(int fd, const void* buffer, size_t n);
  virtual int fsync(int fd);
  virtual int close(int fd);
  virtual int rename(const char* from, const char* to);
  virtual int unlink(const char* path);

  static Env& system();
};

/// Whole regular file of at most `max_bytes`.
Result<std::string> read_file(Env& env, const std::string& path, size_t max_bytes);
/// temp file beside `path` -> write all -> fsync -> rename -> fsync directory. On failure `path`
/// is as it was and the temp file is gone.
Status write_file_durably(Env& env, const std::string& path, std::string_view contents, mode_t mode);
/// "No space left on device" for the current errno, as a Status of the fitting code.
Status errno_status(std::string_view what, int error);

}  // namespace chimera
