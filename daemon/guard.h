// What guards a daemon, made from its deployment: who is admitted, which modules, the record, its
// own key.
//
// Thread safety: made by the main thread before the daemon serves; the parts say their own.
#pragma once

#include <memory>
#include <string>

#include "base/status.h"
#include "daemon/config/config.h"
#include "daemon/security/audit_log.h"
#include "daemon/security/authority.h"
#include "daemon/security/module_trust.h"

namespace chimera {

struct Guard {
  std::unique_ptr<Authority> authority;
  std::unique_ptr<AuditLog> audit;       // in the state directory
  std::unique_ptr<ModuleTrust> modules;  // which are let in
  std::string secret_key;                // Z85; empty: none
};

/// Reads key and clients file; `config` has its defaults filled in.
Result<Guard> make_guard(const DeploymentConfig& config);

}  // namespace chimera
