// Env: the system calls that loading and committing depend on, behind one virtual seam, so that
// tests can fail the N-th of them (ENOSPC, EIO, EMFILE, EINTR, short I/O).
//
// Thread safety: the default Env is stateless. ScopedFd and DurableFile belong to one thread.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"

namespace chimera {

class Env {
 public:
  virtual ~Env() = default;
  // Each returns what the system call of its name returns, with errno set on failure.
  virtual int open(const char* path, int flags, mode_t mode);
  virtual ssize_t read(int fd, void* buffer, size_t n);
  virtual ssize_t pread(int fd, void* buffer, size_t n, off_t offset);
  virtual ssize_t write(int fd, const void* buffer, size_t n);
  virtual ssize_t pwrite(int fd, const void* buffer, size_t n, off_t offset);
  virtual int fsync(int fd);
  virtual int close(int fd);
  virtual int rename(const char* from, const char* to);
  virtual int unlink(const char* path);

  static Env& system();
};

/// Owns a descriptor; closes it through the Env that opened it.
class ScopedFd {
 public:
  /// Opens an existing regular file for reading (close-on-exec). Symbolic links are followed; a
  /// FIFO, socket, device or directory is refused without blocking on it (invalid_argument).
  static Result<ScopedFd> open_regular(Env& env, const std::string& path);

  ScopedFd(Env& env, int fd, uint64_t size) : env_(&env), fd_(fd), size_(size) {}
  ScopedFd(ScopedFd&& other) noexcept
      : env_(other.env_), fd_(std::exchange(other.fd_, -1)), size_(other.size_) {}
  ScopedFd& operator=(ScopedFd&&) = delete;
  ~ScopedFd();

  int fd() const { return fd_; }
  /// Size of the file when it was opened, bytes.
  uint64_t size() const { return size_; }

 private:
  Env* env_;
  int fd_;
  uint64_t size_;
};

/// A file that appears under its name complete or not at all: temp file beside it, fsync, rename,
/// fsync of the directory. Without a successful commit() the destructor removes the temp file,
/// which is named ".tmp-<pid>-<n>" so that one left by a crash is recognised.
class DurableFile {
 public:
  static Result<DurableFile> create(Env& env, const std::string& path, mode_t mode);

  DurableFile(DurableFile&& other) noexcept;
  DurableFile& operator=(DurableFile&&) = delete;
  ~DurableFile();

  Status append(std::span<const std::byte> bytes);
  /// Call once, last. When only the final fsync of the directory fails, the new contents are
  /// in place but may not survive a loss of power; every other failure leaves `path` as it was.
  Status commit();

 private:
  DurableFile(Env& env, std::string path, std::string temp, int fd)
      : env_(&env), path_(std::move(path)), temp_(std::move(temp)), fd_(fd) {}

  Env* env_;
  std::string path_;
  std::string temp_;  // empty once renamed or removed
  int fd_;
};

/// Whole regular file of at most `max_bytes`. Pointers of Git LFS and git-annex are refused.
Result<std::string> read_file(Env& env, const std::string& path, size_t max_bytes);
/// temp file beside `path` -> write all -> fsync -> rename -> fsync directory. On failure `path`
/// is as it was (exception: see DurableFile::commit) and the temp file is gone.
Status write_file_durably(Env& env, const std::string& path, std::string_view contents,
                          mode_t mode);
/// fsync of a directory, which makes the names created or renamed in it durable.
Status sync_directory(Env& env, const std::string& dir);
/// The directory part of `path`, "." when there is none.
std::string parent_directory(const std::string& path);
/// "<what>: No space left on device" for `error` (an errno), as a Status of the fitting code.
Status errno_status(std::string_view what, int error);

}  // namespace chimera
