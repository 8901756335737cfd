#include "chimera_client/curve.h"

#include <fmt/format.h>

#include <cstdlib>

#include "clients/keys/certificate.h"

namespace chimera::client {
namespace {

std::string from_environment(const std::string& stated, const char* variable) {
  const char* value = std::getenv(variable);
  return stated.empty() && value != nullptr ? value : stated;
}

}  // namespace

KeyFiles key_files(const Options& options) {
  return {from_environment(options.key, "CHIMERA_KEY"),
          from_environment(options.server_key, "CHIMERA_SERVER_KEY")};
}

std::variant<std::optional<CurveKeys>, Error> read_keys(const std::string& endpoint,
                                                        const KeyFiles& files) {
  // An ipc socket tells the daemon the user; keys are for connections that tell nothing.
  if (!endpoint.starts_with("tcp://")) return std::nullopt;
  if (files.key.empty() && files.server_key.empty()) return std::nullopt;
  if (files.key.empty() || files.server_key.empty()) {
    return Error{"invalid_argument",
                 fmt::format("keys: found {} alone (expected key and server key, or none)",
                             files.key.empty() ? files.server_key : files.key),
                 "set --key and --server-key, or CHIMERA_KEY and CHIMERA_SERVER_KEY"};
  }
  const auto own = keys::read_secret(files.key);
  const auto server = keys::read_public(files.server_key);
  for (const Status& status : {own.status(), server.status()}) {
    if (status.ok()) continue;
    return Error{std::string(code_name(status.code())), status.message(), status.hint()};
  }
  return CurveKeys{own->public_key, own->secret_key, server->public_key};
}

Error refused(const std::string& endpoint, bool with_keys) {
  return {"permission_denied", fmt::format("daemon: {} refuses this client", endpoint),
          with_keys ? "is its public key in the daemon's clients file, and not expired?"
                    : "its user is none of the daemon's clients"};
}

}  // namespace chimera::client
