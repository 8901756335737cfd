#include "clients/wire/endpoints.h"

#include <unistd.h>

#include <cstdlib>

namespace chimera::wire {
namespace {

constexpr std::string_view kIpc = "ipc://";

std::string endpoint(std::string_view socket_name) {
  return std::string(kIpc).append(runtime_dir()).append("/").append(socket_name);
}

}  // namespace

std::string runtime_dir() {
  // The XDG rules say that a relative value is invalid and must be ignored.
  const char* xdg = std::getenv("XDG_RUNTIME_DIR");
  if (xdg != nullptr && xdg[0] == '/') return std::string(xdg) + "/chimera";
  return "/tmp/chimera-" + std::to_string(getuid());
}

std::string default_serve_endpoint() { return endpoint("serve.sock"); }
std::string default_control_endpoint() { return endpoint("control.sock"); }

std::string_view ipc_path(std::string_view endpoint) {
  if (!endpoint.starts_with(kIpc)) return {};
  return endpoint.substr(kIpc.size());
}

}  // namespace chimera::wire
