#include "daemon/guard.h"

#include "clients/keys/certificate.h"
#include "daemon/security/writers.h"

namespace chimera {

Result<Guard> make_guard(const DeploymentConfig& config) {
  Guard guard;
  CHIMERA_RETURN_IF_ERROR(check_writers(config.state_dir).with_context("state"));
  for (const std::string& dir : config.watch) {
    // One that is missing is the watcher's to tell.
    const Status status = check_not_everybodys(dir);
    if (status.code() == Code::kPermissionDenied) return status.with_context("watch");
  }
  if (!config.security.key.empty()) {
    auto key = keys::read_secret(config.security.key);
    if (!key.ok()) return key.status().with_context("security.key");
    guard.signer = keys::statement_signer(key->secret_key);
    guard.secret_key = std::move(key->secret_key);
  }
  auto authority = Authority::start({.clients = config.security.clients});
  if (!authority.ok()) return authority.status();
  guard.authority = std::move(*authority);
  auto audit = AuditLog::open({.directory = config.state_dir + "/audit"});
  if (!audit.ok()) return audit.status().with_context("audit");
  guard.audit = std::move(*audit);
  auto usage = UsageLedger::open({.directory = config.state_dir + "/usage"});
  if (!usage.ok()) return usage.status().with_context("usage");
  guard.usage = std::move(*usage);
  guard.budget = std::make_unique<TokenBudget>();
  auto modules = ModuleTrust::open(
      {config.trust.roots, config.trust.keys, config.trust.require_signed, config.trust.minimum});
  if (!modules.ok()) return modules.status();
  guard.modules = std::move(*modules);
  return guard;
}

}  // namespace chimera
