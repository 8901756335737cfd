// Revocations, and the statement about one that its owner can keep.
//
// Thread safety: free functions over values.
#pragma once

#include <string>

#include "base/json/json.h"
#include "base/statement/statement.h"
#include "daemon/registry/registry.h"

namespace chimera {

/// The signed statement "revocation/1" of docs/security.md. `time`: when it is made, UTC.
Json make_revocation(const StatementSigner& signer, const RevokedModule& revoked,
                     const Traces& after, const ChangeReport& report, std::string time);

}  // namespace chimera
