// The console: a page whose files are part of the program. Whoever reaches the gateway may read it;
// it holds no secret, and asks with a key like every other client.
//
// Thread safety: pure functions.
#pragma once

#include <string_view>

#include "clients/gateway/http/message.h"

namespace chimera::gateway::page {

/// Whether `path` is the page ("/") or a file of it ("/console.js").
bool has(std::string_view path);

/// The file; 304 without it when the client says that it has this very one (If-None-Match).
/// REQUIRES: has(request.path).
Response answer(const Request& request);

}  // namespace chimera::gateway::page
