// `tools` and `tool_choice` of a chat.
//
// Thread safety: pure function.
#pragma once

#include "clients/gateway/body/members.h"
#include "clients/gateway/dialect/call_rules.h"

namespace chimera::gateway::openai {

/// How functions stand in `tools` and `tool_choice`.
enum class ToolShape : uint8_t {
  kNested,  // {"type": "function", "function": {"name", …}}: of /v1/chat/completions
  kFlat,    // {"type": "function", "name", …}: of /v1/responses
};

/// Takes them from `members`, with parallel_tool_calls. With the choice `none` there are no tools.
CallRules take_tools(Members& members, ToolShape shape);

}  // namespace chimera::gateway::openai
