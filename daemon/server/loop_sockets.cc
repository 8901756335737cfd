// The sockets of the loop: libzmq's in the private directory, the front before them.
#include <algorithm>
#include <array>

#include "clients/wire/endpoints.h"
#include "daemon/server/admission.h"
#include "daemon/server/endpoint.h"
#include "daemon/server/loop.h"

namespace chimera {
namespace {

// A host may have half of the connections of an endpoint.
constexpr size_t kHostShare = 2;

KnownBy known_by(const std::string& endpoint, const std::string& secret_key) {
  if (!wire::ipc_path(endpoint).empty()) return KnownBy::kUser;
  return secret_key.empty() ? KnownBy::kLoopback : KnownBy::kKey;
}

}  // namespace

Status ServerLoop::open_sockets() {
  const std::array endpoints = {options_.serve_endpoint, options_.control_endpoint};
  const std::array keys = {options_.serve_insecure ? std::string() : options_.secret_key,
                           options_.secret_key};
  const std::array names = {"serve", "control"};
  for (size_t port = 0; port < endpoints.size(); ++port) {
    CHIMERA_RETURN_IF_ERROR(check_endpoint(endpoints[port], !keys[port].empty()));
  }
  auto directory = PrivateDirectory::open(options_.private_directory);
  if (!directory.ok()) return directory.status();
  directory_ = std::move(directory).value();
  auto context = make_socket_context(*options_.authority);
  if (!context.ok()) return context.status();
  context_ = std::move(context).value();

  Front::Options front;
  std::vector<KnownBy> kinds;
  const size_t of_control = std::max<size_t>(options_.max_connections / 4, 1);
  for (size_t port = 0; port < endpoints.size(); ++port) {
    const KnownBy kind = known_by(endpoints[port], keys[port]);
    const std::string inner = directory_->path_of(names[port]);
    auto socket = RouterSocket::bind(context_, inner, port,
                                     kind == KnownBy::kKey ? keys[port] : std::string());
    if (!socket.ok()) return socket.status();
    sockets_[port] = std::move(socket).value();
    const size_t most = port == 1 ? of_control : options_.max_connections - of_control;
    kinds.push_back(kind);
    front.endpoints.push_back(
        {.address = endpoints[port],
         .mechanism = kind == KnownBy::kKey ? Mechanism::kCurve : Mechanism::kNull,
         .mode = options_.other_users ? mode_t{0666} : mode_t{0600},
         .inner = inner,
         .most = most,
         .most_per_host = std::max<size_t>(most / kHostShare, 1)});
  }
  front.admit = admission(*options_.authority, std::move(kinds));
  auto started = Front::start(std::move(front));
  if (!started.ok()) return started.status();
  front_ = std::move(started).value();
  for (auto& socket : sockets_) socket->attach(front_.get());
  return {};
}

}  // namespace chimera
