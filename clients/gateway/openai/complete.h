// Answers requests for completions: from the body to the last byte of the answer.
//
// Thread safety: by the thread of the server's loop.
#pragma once

#include <memory>

#include "clients/gateway/api/caller.h"
#include "clients/gateway/api/upstream.h"
#include "clients/gateway/http/exchange.h"
#include "clients/gateway/openai/completion.h"

namespace chimera::gateway::openai {

/// `daemon` and `names` outlive the answer.
void complete(Api api, std::shared_ptr<Exchange> exchange, Caller caller, Upstream& daemon,
              const ModelNames& names);

}  // namespace chimera::gateway::openai
