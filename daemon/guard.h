// What guards a daemon, made from its deployment: who is admitted and what they may take, which
// modules, the record, the account of usage, its own key.
//
// Thread safety: made by the main thread before the daemon serves; the parts say their own.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/statement/statement.h"
#include "base/status.h"
#include "daemon/config/config.h"
#include "daemon/security/audit_log.h"
#include "daemon/security/authority.h"
#include "daemon/security/module_trust.h"
#include "daemon/security/token_budget.h"
#include "daemon/security/usage_ledger.h"

namespace chimera {

struct Guard {
  std::unique_ptr<Authority> authority;
  std::unique_ptr<AuditLog> audit;     // in the state directory
  std::unique_ptr<UsageLedger> usage;  // likewise
  std::unique_ptr<TokenBudget> budget;
  std::unique_ptr<ModuleTrust> modules;   // which are let in
  std::string secret_key;                 // Z85; empty: none
  std::optional<StatementSigner> signer;  // with that key

  /// For a ModuleLoader, which `modules` outlives.
  auto accept() const { return std::bind_front(&ModuleTrust::check_together, modules.get()); }
};

/// Reads key and clients file; `config` has its defaults filled in.
Result<Guard> make_guard(const DeploymentConfig& config);

}  // namespace chimera
