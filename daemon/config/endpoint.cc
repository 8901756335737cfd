#include "daemon/config/endpoint.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <sys/un.h>

#include <charconv>
#include <filesystem>
#include <string_view>

namespace chimera {
namespace {

constexpr size_t kMaxIpcPath = sizeof(sockaddr_un::sun_path) - 1;

Status refused(std::string_view found, std::string_view expected) {
  return Status(Code::kInvalidArgument, fmt::format("found {} (expected {})", found, expected));
}

Result<std::string> check_ipc(const std::string& endpoint, const std::string& base_dir) {
  const std::string name = endpoint.substr(6);
  if (name.empty() || name.back() == '/')
    return refused(endpoint, "ipc:// and the path of a socket");
  // ZeroMQ binds "*" to a random name, "@x" to one without file permissions.
  if (name == "*" || name.front() == '@') {
    return refused(endpoint, "the path of a socket, which file permissions protect");
  }
  std::filesystem::path path(name);
  if (path.is_relative()) {
    if (base_dir.empty()) return refused(endpoint, "an absolute path");
    path = std::filesystem::path(base_dir) / path;
  }
  const std::string full = path.lexically_normal().string();
  if (full.size() > kMaxIpcPath) {
    return refused(fmt::format("a socket path of {} bytes", full.size()),
                   fmt::format("at most {} bytes; choose a shorter directory", kMaxIpcPath));
  }
  return "ipc://" + full;
}

/// "[::1]" without its brackets, anything else as it is.
std::string bare(const std::string& host) {
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  return bracketed ? host.substr(1, host.size() - 2) : host;
}

bool is_v4(const std::string& host) {
  in_addr address{};
  return inet_pton(AF_INET, host.c_str(), &address) == 1;
}
bool is_v6(const std::string& host) {
  in6_addr address{};
  return host.front() == '[' && inet_pton(AF_INET6, bare(host).c_str(), &address) == 1;
}

bool is_loopback(const std::string& host) {
  if (host == "localhost" || host == "[::1]") return true;
  in_addr v4{};
  return inet_pton(AF_INET, host.c_str(), &v4) == 1 && (ntohl(v4.s_addr) >> 24) == 127;
}

Result<std::string> check_tcp(const std::string& endpoint) {
  const std::string rest = endpoint.substr(6);
  const size_t colon = rest.rfind(':');
  if (colon == std::string::npos || colon == 0) {
    return refused(endpoint, "tcp://127.0.0.1:PORT");
  }
  const std::string host = rest.substr(0, colon);
  const std::string_view port_text = std::string_view(rest).substr(colon + 1);
  int port = 0;
  const auto [end, error] =
      std::from_chars(port_text.data(), port_text.data() + port_text.size(), port);
  if (error != std::errc() || end != port_text.data() + port_text.size() || port < 1 ||
      port > 65535) {
    return refused(fmt::format("port {} in {}", port_text, endpoint), "1..65535");
  }
  // Names of interfaces and hosts may come to mean another address.
  if (host == "*" || host == "localhost" || is_v4(host) || is_v6(host)) return endpoint;
  return refused(endpoint, "ipc:// or tcp:// and an address in numbers, as tcp://127.0.0.1:PORT");
}

}  // namespace

bool is_loopback_endpoint(const std::string& endpoint) {
  const size_t colon = endpoint.rfind(':');
  return endpoint.starts_with("tcp://") && colon > 6 && is_loopback(endpoint.substr(6, colon - 6));
}

Result<std::string> check_endpoint(const std::string& endpoint, const std::string& base_dir) {
  if (endpoint.rfind("ipc://", 0) == 0) return check_ipc(endpoint, base_dir);
  if (endpoint.rfind("tcp://", 0) == 0) return check_tcp(endpoint);
  return refused(endpoint, "ipc://PATH or tcp://ADDRESS:PORT");
}

}  // namespace chimera
