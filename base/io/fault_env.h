// FaultEnv: an Env for tests that fails or shortens the N-th call of a kind and counts the rest.
// Not part of any library.
//
//   for (int n = 1;; ++n) {
//     FaultEnv env;
//     env.fail_nth(FaultEnv::kWrite, n, ENOSPC);
//     Status s = operation(env);
//     if (!env.fired()) break;      // the operation makes fewer than n such calls
//     … s is an error, nothing changed, env.open_fds() == 0 …
//   }
//
// Thread safety: none; one per operation.
#pragma once

#include <array>
#include <cerrno>
#include <cstddef>

#include "base/io/env.h"

namespace chimera {

class FaultEnv : public Env {
 public:
  enum Call { kOpen, kRead, kWrite, kFsync, kClose, kRename, kUnlink, kCalls };
  static constexpr std::array<const char*, kCalls> kNames = {"open",  "read",   "write", "fsync",
                                                             "close", "rename", "unlink"};

  /// The n-th `call` (from 1) returns -1 with errno = error. It is not made, except a close,
  /// which releases the descriptor as Linux does.
  void fail_nth(Call call, int n, int error) { fault_ = {call, n, error}; }
  /// Every read and write moves at most `bytes`.
  void limit_io(size_t bytes) { io_limit_ = bytes; }

  bool fired() const { return fired_; }
  int calls(Call call) const { return counts_[call]; }
  /// Descriptors opened and not closed.
  int open_fds() const { return open_fds_; }

  int open(const char* path, int flags, mode_t mode) override {
    if (fails(kOpen)) return -1;
    const int fd = Env::open(path, flags, mode);
    open_fds_ += fd >= 0;
    return fd;
  }
  ssize_t read(int fd, void* buffer, size_t n) override {
    return fails(kRead) ? -1 : Env::read(fd, buffer, n < io_limit_ ? n : io_limit_);
  }
  ssize_t pread(int fd, void* buffer, size_t n, off_t offset) override {
    return fails(kRead) ? -1 : Env::pread(fd, buffer, n < io_limit_ ? n : io_limit_, offset);
  }
  ssize_t write(int fd, const void* buffer, size_t n) override {
    return fails(kWrite) ? -1 : Env::write(fd, buffer, n < io_limit_ ? n : io_limit_);
  }
  ssize_t pwrite(int fd, const void* buffer, size_t n, off_t offset) override {
    return fails(kWrite) ? -1 : Env::pwrite(fd, buffer, n < io_limit_ ? n : io_limit_, offset);
  }
  int fsync(int fd) override { return fails(kFsync) ? -1 : Env::fsync(fd); }
  int close(int fd) override {
    const bool fail = fails(kClose);
    const int error = errno;
    open_fds_ -= 1;
    const int result = Env::close(fd);
    if (!fail) return result;
    errno = error;
    return -1;
  }
  int rename(const char* from, const char* to) override {
    return fails(kRename) ? -1 : Env::rename(from, to);
  }
  int unlink(const char* path) override { return fails(kUnlink) ? -1 : Env::unlink(path); }

 private:
  struct Fault {
    Call call = kCalls;
    int n = 0;
    int error = 0;
  };

  bool fails(Call call) {
    if (++counts_[call] != fault_.n || call != fault_.call) return false;
    fired_ = true;
    errno = fault_.error;
    return true;
  }

  Fault fault_;
  size_t io_limit_ = static_cast<size_t>(-1);
  std::array<int, kCalls> counts_{};
  int open_fds_ = 0;
  bool fired_ = false;
};

}  // namespace chimera
