// One end of the socket pair between chimerad and a chimera-plugin-host: whole frames of
// protocol.h, and with them descriptors.
//
// Thread safety: send() from any thread; receive() from one.
#pragma once

#include <chrono>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "experts/isolation/protocol.h"

namespace chimera {

/// Descriptors that came with a message; closed unless taken.
class ReceivedFds {
 public:
  ReceivedFds() = default;
  ReceivedFds(ReceivedFds&& other) noexcept : fds_(std::exchange(other.fds_, {})) {}
  ReceivedFds& operator=(ReceivedFds&& other) noexcept {
    fds_.swap(other.fds_);
    return *this;
  }
  ~ReceivedFds();
  void add(int fd) { fds_.push_back(fd); }
  size_t size() const { return fds_.size(); }
  int at(size_t i) const { return fds_.at(i); }
  /// Passes ownership on.
  int take(size_t i) { return std::exchange(fds_.at(i), -1); }

 private:
  std::vector<int> fds_;
};

class HostChannel {
 public:
  static constexpr size_t kMaxFds = 4;

  /// Owns `fd`.
  explicit HostChannel(int fd) : fd_(fd) {}
  HostChannel(HostChannel&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  HostChannel& operator=(HostChannel&&) = delete;
  ~HostChannel();
  /// Both ends, close-on-exec.
  static Result<std::pair<HostChannel, HostChannel>> pair();

  int fd() const { return fd_; }

  /// Never blocks: resource_exhausted when the other side does not keep up, unavailable when it is
  /// gone.
  Status send(HostMessage type, std::string_view payload, std::span<const int> fds = {}) const;

  struct Received {
    HostFrame frame;
    ReceivedFds fds;
  };
  /// Waits up to `timeout` for one frame. deadline_exceeded when none came, unavailable when the
  /// other side is gone, data_corrupt for anything that is no frame.
  Result<Received> receive(std::chrono::milliseconds timeout) const;

 private:
  int fd_;
};

}  // namespace chimera
