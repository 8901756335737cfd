// Functions that a model may call, as every API describes them.
//
// Thread safety: pure function.
#pragma once

#include "clients/gateway/body/members.h"

namespace chimera::gateway {

/// {"type": "function", "function": {"name", "description", "parameters"}}, as chat templates take
/// it. Takes `name`, `description`, `strict` and the member that is called `parameters` from
/// `function`, which notes what is wrong.
Json read_function(Members& function, const char* parameters);

}  // namespace chimera::gateway
