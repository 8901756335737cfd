#include "daemon/server/endpoint.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "clients/wire/endpoints.h"

namespace chimera {
namespace {

bool daemon_answers(const sockaddr_un& address) {
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return false;
  const int rc = ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address);
  const int error = errno;
  ::close(fd);
  return rc == 0 || error == EAGAIN || error == EINPROGRESS;  // EAGAIN: its backlog is full
}

/// libzmq removes whatever lies at the path before it binds, so look first.
Status check_ipc(const std::string& endpoint, const std::string& path) {
  if (path.empty() || path[0] != '/') {
    return Status(Code::kInvalidArgument,
                  fmt::format("endpoint {}: path (expected ipc:// and an absolute path)", endpoint),
                  "write it as ipc:///run/…/serve.sock");
  }
  if (path.size() > wire::kMaxIpcPath) {
    return Status(Code::kInvalidArgument,
                  fmt::format("endpoint {}: path of {} bytes (expected at most {})", endpoint,
                              path.size(), wire::kMaxIpcPath),
                  "choose a shorter directory");
  }
  struct stat found {};
  if (::lstat(path.c_str(), &found) != 0) {
    if (errno == ENOENT) return {};
    return Status(Code::kFailedPrecondition,
                  fmt::format("endpoint {}: {}", endpoint, std::strerror(errno)),
                  "check the directory and its permissions");
  }
  if (!S_ISSOCK(found.st_mode)) {
    return Status(
        Code::kFailedPrecondition,
        fmt::format("endpoint {}: another kind of file lies there (expected a socket)", endpoint),
        "remove it or choose another endpoint");
  }
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  if (daemon_answers(address)) {
    return Status(Code::kFailedPrecondition,
                  fmt::format("endpoint {}: another daemon answers there", endpoint),
                  "stop it (chimera shutdown) or give this one its own endpoints");
  }
  return {};
}

Status check_tcp(const std::string& endpoint) {
  for (const std::string_view local : {"tcp://127.", "tcp://[::1]:", "tcp://localhost:"}) {
    if (endpoint.starts_with(local)) return {};
  }
  return Status(Code::kPermissionDenied,
                fmt::format("endpoint {}: reachable from other machines without keys (expected "
                            "ipc://, tcp://127.0.0.1:PORT, or security.key and security.clients)",
                            endpoint),
                "docs/security.md says how keys are made");
}

}  // namespace

Status check_endpoint(const std::string& endpoint, bool curve) {
  if (endpoint.starts_with("ipc://")) {
    return check_ipc(endpoint, std::string(wire::ipc_path(endpoint)));
  }
  if (endpoint.starts_with("tcp://")) return curve ? Status() : check_tcp(endpoint);
  return Status(Code::kInvalidArgument,
                fmt::format("endpoint {}: transport (expected ipc:// or tcp://)", endpoint),
                "see design of deployments: serve.endpoint");
}

}  // namespace chimera
