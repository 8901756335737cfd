// GET /v1/models: the compositions that a caller may name.
//
// Thread safety: by the thread of the server's loop.
#pragma once

#include <memory>
#include <string>

#include "clients/gateway/api/caller.h"
#include "clients/gateway/api/composition.h"
#include "clients/gateway/api/upstream.h"
#include "clients/gateway/http/exchange.h"

namespace chimera::gateway::openai {

/// All of them, or the one of that id (not empty).
void list_models(std::shared_ptr<Exchange> exchange, std::string id, Caller caller,
                 Upstream& daemon, const ModelNames& names);

}  // namespace chimera::gateway::openai
