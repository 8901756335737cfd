// What a client may take at most, and the account of what it took.
//
// Thread safety: on the IO thread or a worker, as the handlers of calls.h.
#pragma once

#include "daemon/security/token_budget.h"
#include "daemon/security/usage_ledger.h"
#include "daemon/server/answers/live.h"

namespace chimera {

/// Where it is counted what clients take. Both outlive every request; null: not counted.
struct Meters {
  TokenBudget* budget = nullptr;
  UsageLedger* usage = nullptr;
};

/// Narrows a request to what its client may take, or refuses it: invalid_argument when its prompt
/// is longer than it may be, resource_exhausted when the client's tokens of this minute are used
/// up. What the answer takes will be put to the client's account.
Status apply_limits(const Meters& meters, Live& live, EngineRequest* request);

}  // namespace chimera
