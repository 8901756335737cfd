// `tools` and `tool_choice` of a chat.
//
// Thread safety: pure function.
#pragma once

#include <memory>

#include "clients/gateway/body/members.h"

namespace chimera::gateway::openai {

struct Tools {
  std::shared_ptr<const Json> list{};  // as the template takes them; null: none
  bool parallel = true;                // false: the first call of an answer counts
};

/// Takes them from `members`, with parallel_tool_calls. With the choice `none` there are no tools.
/// A choice that demands a call is refused by name, as nothing would make the model obey.
Tools take_tools(Members& members);

}  // namespace chimera::gateway::openai
