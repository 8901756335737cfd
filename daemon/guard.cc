#include "daemon/guard.h"

#include "clients/keys/certificate.h"

namespace chimera {

Result<Guard> make_guard(const DeploymentConfig& config) {
  Guard guard;
  if (!config.security.key.empty()) {
    auto key = keys::read_secret(config.security.key);
    if (!key.ok()) return key.status().with_context("security.key");
    guard.secret_key = std::move(key->secret_key);
  }
  auto authority = Authority::start({.clients = config.security.clients});
  if (!authority.ok()) return authority.status();
  guard.authority = std::move(*authority);
  auto audit = AuditLog::open({.directory = config.state_dir + "/audit"});
  if (!audit.ok()) return audit.status().with_context("audit");
  guard.audit = std::move(*audit);
  return guard;
}

}  // namespace chimera
