#include "experts/isolation/channel.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/io/env.h"

namespace chimera {
namespace {

Status gone() { return {Code::kUnavailable, "plugin host: the other side is gone"}; }

template <class Call>
auto retry(Call call) {
  for (;;) {
    const auto result = call();
    if (result >= 0 || errno != EINTR) return result;
  }
}

}  // namespace

ReceivedFds::~ReceivedFds() {
  for (const int fd : fds_) {
    if (fd >= 0) ::close(fd);
  }
}

HostChannel::~HostChannel() {
  if (fd_ >= 0) ::close(fd_);
}

Result<std::pair<HostChannel, HostChannel>> HostChannel::pair() {
  int fds[2];
  // Datagrams in order, with an end: a frame arrives whole or not at all.
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) != 0) {
    return errno_status("plugin host: socket pair", errno);
  }
  return std::pair(HostChannel(fds[0]), HostChannel(fds[1]));
}

Status HostChannel::send(HostMessage type, std::string_view payload,
                         std::span<const int> fds) const {
  if (payload.size() > kMaxHostPayload || fds.size() > kMaxFds) {
    return {Code::kInvalidArgument,
            fmt::format("plugin host: found a message of {} bytes and {} descriptors (expected at "
                        "most {} and {})",
                        payload.size(), fds.size(), kMaxHostPayload, kMaxFds)};
  }
  std::string frame = encode_frame(type, payload);
  iovec data{frame.data(), frame.size()};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxFds * sizeof(int))] = {};
  if (!fds.empty()) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
    std::memcpy(CMSG_DATA(header), fds.data(), fds.size() * sizeof(int));
  }
  if (retry([&] { return ::sendmsg(fd_, &message, MSG_NOSIGNAL | MSG_DONTWAIT); }) >= 0) return {};
  if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS) {
    return {Code::kResourceExhausted, "plugin host: the other side does not keep up"};
  }
  if (errno == EPIPE || errno == ECONNRESET || errno == ENOTCONN) return gone();
  return errno_status("plugin host: sending", errno);
}

Result<HostChannel::Received> HostChannel::receive(std::chrono::milliseconds timeout) const {
  pollfd poll_fd{fd_, POLLIN, 0};
  const int ready = retry([&] { return ::poll(&poll_fd, 1, static_cast<int>(timeout.count())); });
  if (ready < 0) return errno_status("plugin host: waiting", errno);
  if (ready == 0) return Status(Code::kDeadlineExceeded, "plugin host: no message came");

  std::string buffer(kHostHeaderBytes + kMaxHostPayload, '\0');
  iovec data{buffer.data(), buffer.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxFds * sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  const ssize_t n =
      retry([&] { return ::recvmsg(fd_, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT); });
  if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
    return Status(Code::kDeadlineExceeded, "plugin host: no message came");
  }
  if (n < 0 && errno != ECONNRESET) return errno_status("plugin host: receiving", errno);
  if (n <= 0) return gone();

  Received received;
  for (cmsghdr* h = CMSG_FIRSTHDR(&message); h != nullptr; h = CMSG_NXTHDR(&message, h)) {
    if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(h) + i * sizeof(int), sizeof(fd));
      received.fds.add(fd);
    }
  }
  if ((message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
    return Status(Code::kDataCorrupt,
                  fmt::format("plugin host: found a message longer than {} bytes (expected less)",
                              kMaxHostPayload));
  }
  Result<HostFrame> frame = decode_frame({buffer.data(), static_cast<size_t>(n)});
  if (!frame.ok()) return frame.status();
  received.frame = std::move(*frame);
  return received;
}

}  // namespace chimera
