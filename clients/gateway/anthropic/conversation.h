// The messages of the Messages API -> as chat templates take them.
//
// Thread safety: pure functions.
#pragma once

#include <string>
#include <variant>

#include "base/json/json.h"
#include "clients/gateway/api/api_error.h"

namespace chimera::gateway::anthropic {

/// Texts of a `content` or `system` in one: a text, or a list of blocks of text.
std::variant<std::string, ApiError> text_of(const Json& content, const std::string& where);

/// Blocks become what the API of OpenAI has: `tool_use` calls of the message, `thinking` its
/// reasoning_content, each `tool_result` a message of the role `tool` before the words beside it.
/// Other blocks (images, documents) are refused by name. `system` stands first unless empty.
std::variant<Json, ApiError> read_messages(const Json& messages, const std::string& system);

}  // namespace chimera::gateway::anthropic
