#include "daemon/front/listener.h"

#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include "base/io/env.h"

namespace chimera {
namespace {

constexpr std::string_view kIpc = "ipc://", kTcp = "tcp://";
constexpr int kFlags = SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK;

/// Files that are made meanwhile are their owner's only. The mask is the process's.
class OwnerOnly {
 public:
  OwnerOnly() : before_(::umask(0177)) {}
  ~OwnerOnly() { ::umask(before_); }
  OwnerOnly(const OwnerOnly&) = delete;
  OwnerOnly& operator=(const OwnerOnly&) = delete;

 private:
  const mode_t before_;
};

sockaddr_un unix_address(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  return address;
}

Status failed(const std::string& address, int error) {
  return {Code::kFailedPrecondition,
          fmt::format("endpoint {}: bind: {}", address, std::strerror(error)),
          "check that its directory exists and that nothing else uses the address"};
}

Result<OwnedFd> bind_ipc(const std::string& address, const std::string& path, mode_t mode) {
  OwnedFd fd(::socket(AF_UNIX, kFlags, 0));
  if (!fd.valid()) return errno_status(address, errno);
  // What lies there was looked at before (server/endpoint.h): a socket that nobody answers.
  ::unlink(path.c_str());
  const sockaddr_un name = unix_address(path);
  {
    const OwnerOnly from_the_first_moment_on;
    if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name) != 0) {
      return failed(address, errno);
    }
  }
  if (mode != 0600) ::chmod(path.c_str(), mode);
  return fd;
}

Result<OwnedFd> bind_tcp(const std::string& address) {
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos || colon <= kTcp.size()) return failed(address, EINVAL);
  std::string host = address.substr(kTcp.size(), colon - kTcp.size());
  if (host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  if (host == "*") host = "0.0.0.0";
  if (host == "localhost") host = "127.0.0.1";
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  if (::getaddrinfo(host.c_str(), address.c_str() + colon + 1, &hints, &found) != 0) {
    return failed(address, EADDRNOTAVAIL);
  }
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> name(found, ::freeaddrinfo);
  OwnedFd fd(::socket(name->ai_family, kFlags, 0));
  if (!fd.valid()) return errno_status(address, errno);
  const int on = 1;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (::bind(fd.get(), name->ai_addr, name->ai_addrlen) != 0) return failed(address, errno);
  return fd;
}

std::string numeric(const sockaddr_storage& name, socklen_t size, std::string* host_out) {
  char host[NI_MAXHOST] = "", port[NI_MAXSERV] = "";
  if (::getnameinfo(reinterpret_cast<const sockaddr*>(&name), size, host, sizeof host, port,
                    sizeof port, NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
    return "";
  }
  *host_out = host;
  return name.ss_family == AF_INET6 ? fmt::format("[{}]:{}", host, port)
                                    : fmt::format("{}:{}", host, port);
}

}  // namespace

OwnedFd& OwnedFd::operator=(OwnedFd&& other) noexcept {
  reset();
  fd_ = other.release();
  return *this;
}

void OwnedFd::reset() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

int OwnedFd::release() { return std::exchange(fd_, -1); }

Result<Listener> Listener::bind(const std::string& address, mode_t mode) {
  Listener listener;
  const bool ipc = address.starts_with(kIpc);
  std::string path = ipc ? address.substr(kIpc.size()) : "";
  auto fd = ipc ? bind_ipc(address, path, mode) : bind_tcp(address);
  if (!fd.ok()) return fd.status();
  listener.path_ = std::move(path);
  listener.fd_ = std::move(fd).value();
  if (::listen(listener.fd(), SOMAXCONN) != 0) return failed(address, errno);
  return listener;
}

Listener::~Listener() {
  if (fd_.valid() && !path_.empty()) ::unlink(path_.c_str());
}

OwnedFd Listener::accept() const {
  OwnedFd fd(::accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  const int on = 1;  // tokens are small and wait for nobody
  if (fd.valid() && path_.empty()) {
    ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  }
  return fd;
}

PeerName name_peer(int fd) {
  PeerName out;
  sockaddr_storage name{};
  socklen_t size = sizeof name;
  if (::getpeername(fd, reinterpret_cast<sockaddr*>(&name), &size) != 0) return out;
  if (name.ss_family != AF_UNIX) {
    out.address = numeric(name, size, &out.origin);
    return out;
  }
  ucred peer{};
  size = sizeof peer;
  if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return out;
  out.uid = peer.uid;
  out.address = fmt::format("uid {}, pid {}", peer.uid, peer.pid);
  out.origin = fmt::format("uid {}", peer.uid);
  return out;
}

OwnedFd connect_to(const std::string& path) {
  OwnedFd fd(::socket(AF_UNIX, kFlags, 0));
  const sockaddr_un name = unix_address(path);
  if (!fd.valid() ||
      ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name) != 0) {
    return {};
  }
  return fd;
}

}  // namespace chimera
