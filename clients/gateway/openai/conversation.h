// The messages of a chat as the API writes them -> as chat templates take them.
//
// Thread safety: pure functions.
#pragma once

#include <string>
#include <variant>

#include "base/json/json.h"
#include "clients/gateway/api/api_error.h"

namespace chimera::gateway::openai {

/// Parts of text become one text, `developer` the role `system`; other parts (images, sound, files)
/// are refused by name. `system`, unless empty, stands first where the conversation begins with no
/// system message of its own.
std::variant<Json, ApiError> read_conversation(const Json& messages, const std::string& system);

}  // namespace chimera::gateway::openai
