#include "base/log/readiness.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>

#include "base/log/log.h"

namespace chimera {
namespace {

constexpr std::string_view kReady = "READY=1";

/// 0 or an errno.
int send_ready(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return ENAMETOOLONG;
  path.copy(address.sun_path, path.size());
  if (path[0] == '@') address.sun_path[0] = '\0';  // the abstract name space
  const int socket = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (socket < 0) return errno;
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size());
  const bool sent = ::sendto(socket, kReady.data(), kReady.size(), MSG_NOSIGNAL,
                             reinterpret_cast<const sockaddr*>(&address), length) >= 0;
  const int error = errno;
  ::close(socket);
  return sent ? 0 : error;
}

}  // namespace

void tell_ready() {
  const char* variable = std::getenv("NOTIFY_SOCKET");
  if (variable == nullptr || variable[0] == '\0') return;
  const int error = send_ready(variable);
  if (error == 0) return;
  log::warning("manager_not_told", {{"NOTIFY_SOCKET", variable}, {"reason", std::strerror(error)}});
}

}  // namespace chimera
