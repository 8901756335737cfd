// The `input` of the Responses API -> messages as chat templates take them.
//
// Thread safety: pure function.
#pragma once

#include <string>
#include <variant>

#include "base/json/json.h"
#include "clients/gateway/api/api_error.h"

namespace chimera::gateway::openai {

/// `input` is a text or a list of items. Reasoning, words and calls that follow one another become
/// one message of the assistant, a function's result one of the role `tool`. Other items (images,
/// files, references to what a server kept) are refused by name. `instructions` stand first, else
/// `system` where the items begin with no system message of their own; "" is none.
std::variant<Json, ApiError> read_input(const Json& input, const std::string& instructions,
                                        const std::string& system);

}  // namespace chimera::gateway::openai
