#include "daemon/places.h"

#include <fmt/format.h>
#include <linux/magic.h>
#include <netdb.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <string_view>

#include "base/io/env.h"
#include "clients/wire/endpoints.h"

namespace chimera {
namespace {

/// File systems of the kernel's own, where even root makes nothing.
bool is_kernels(const std::string& path) {
  struct statfs info {};
  if (::statfs(path.c_str(), &info) != 0) return false;
  return info.f_type == PROC_SUPER_MAGIC || info.f_type == SYSFS_MAGIC;
}

Status not_writable(const std::string& path, const std::string& dir, int error) {
  const std::string for_what = dir == path ? "" : fmt::format("{} cannot be made: ", path);
  if (error == EACCES)
    return {Code::kPermissionDenied,
            fmt::format("{}{} may not be written by user {}", for_what, dir, ::geteuid()),
            "Change its owner or choose another place."};
  return errno_status(for_what + dir, error);
}

Status check_tcp(const std::string& endpoint) {
  // The reader of the deployment let only addresses in numbers, "localhost" and "*" through.
  const size_t colon = endpoint.rfind(':');
  std::string host = endpoint.substr(6, colon - 6);
  if (host.front() == '[') host = host.substr(1, host.size() - 2);
  if (host == "localhost") host = "127.0.0.1";
  if (host == "*") host = "0.0.0.0";
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  if (::getaddrinfo(host.c_str(), endpoint.c_str() + colon + 1, &hints, &found) != 0) {
    return {Code::kInvalidArgument, endpoint + ": no address (expected one in numbers)"};
  }
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> address(found, ::freeaddrinfo);
  const int fd = ::socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return errno_status(endpoint, errno);
  const int on = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  const int rc = ::bind(fd, address->ai_addr, address->ai_addrlen);
  const int error = errno;
  ::close(fd);
  return rc == 0 || error == EADDRINUSE ? Status() : errno_status(endpoint + ": bind", error);
}

}  // namespace

Status check_directory_place(const std::string& path) {
  std::string dir = path;
  struct stat info {};
  // Up to what exists: the rest would be made.
  while (::stat(dir.c_str(), &info) != 0) {
    if (errno != ENOENT && errno != ENOTDIR) return not_writable(path, dir, errno);
    if (errno == ENOENT && ::lstat(dir.c_str(), &info) == 0)
      return {Code::kFailedPrecondition,
              fmt::format("{} is a link to nothing (expected a directory)", dir)};
    const std::string parent = parent_directory(dir);
    if (parent == dir) return errno_status(path, ENOENT);
    dir = parent;
  }
  if (!S_ISDIR(info.st_mode))
    return {Code::kFailedPrecondition,
            dir == path ? fmt::format("{} is no directory (expected one)", path)
                        : fmt::format("{} cannot be made: {} is no directory", path, dir),
            "Remove it or choose another place."};
  if (is_kernels(dir)) return not_writable(path, dir, EROFS);
  if (::access(dir.c_str(), W_OK | X_OK) != 0) return not_writable(path, dir, errno);
  return {};
}

Status check_endpoint_place(const std::string& endpoint) {
  const std::string path(wire::ipc_path(endpoint));
  if (path.empty()) return check_tcp(endpoint);
  struct stat info {};
  if (::lstat(path.c_str(), &info) == 0 && !S_ISSOCK(info.st_mode))
    return {Code::kFailedPrecondition,
            fmt::format("{}: another kind of file lies there (expected a socket)", endpoint),
            "Remove it or choose another endpoint."};
  return check_directory_place(parent_directory(path)).with_context(endpoint);
}

}  // namespace chimera
