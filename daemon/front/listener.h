// Listening sockets of the front, and who is at the other end.
//
// Thread safety: a Listener by one thread at a time; free functions from any.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>

#include "base/status.h"

namespace chimera {

/// A descriptor that is closed with its owner.
class OwnedFd {
 public:
  OwnedFd() = default;
  explicit OwnedFd(int fd) : fd_(fd) {}
  OwnedFd(OwnedFd&& other) noexcept : fd_(other.release()) {}
  OwnedFd& operator=(OwnedFd&& other) noexcept;
  ~OwnedFd() { reset(); }

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  void reset();

 private:
  int release();
  int fd_ = -1;
};

class Listener {
 public:
  /// ipc://PATH, a file of `mode` from its first moment on, or tcp://ADDRESS:PORT.
  /// failed_precondition when the address cannot be bound.
  static Result<Listener> bind(const std::string& address, mode_t mode);
  Listener(Listener&&) = default;
  Listener& operator=(Listener&&) = default;
  /// Removes the file of an ipc socket.
  ~Listener();

  int fd() const { return fd_.get(); }
  /// The next connection that waits, not blocking; invalid when none does (errno says why).
  OwnedFd accept() const;

 private:
  Listener() = default;
  OwnedFd fd_;
  std::string path_;  // of ipc
};

/// Of the other end of a connection.
struct PeerName {
  std::string address;          // "127.0.0.1:4711"; "uid 1000, pid 4711" over ipc
  std::string origin;           // the same for all connections of a user or host
  std::optional<uint32_t> uid;  // over ipc
};
PeerName name_peer(int fd);

/// A connection to the ipc socket at `path`, not blocking; invalid when it cannot be had at once.
OwnedFd connect_to(const std::string& path);

}  // namespace chimera
