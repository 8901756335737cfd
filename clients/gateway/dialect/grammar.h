// What an answer may be where calls are demanded, their arguments are to fit schemas, or the words
// are: as `parts` of a constraint (docs/constraints.md), in the marks of the model's dialect.
//
// Thread safety: pure functions.
#pragma once

#include "base/json/json.h"
#include "clients/gateway/dialect/call_rules.h"
#include "clients/gateway/dialect/dialect.h"

namespace chimera::gateway {

/// The list of parts. Reasoning may stand first, as always with the dialect. `content`: the part
/// that the answer is where it is no call; null: any words. Calls have the shapes that the
/// dialect's parser reads, those of Qwen Coder that of Hermes. REQUIRES: no rules without tools,
/// and none where the dialect has no calls (has_tools).
Json answer_parts(const Reading& reading, const CallRules& rules, const Json& content);

}  // namespace chimera::gateway
