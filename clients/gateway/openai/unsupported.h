// Fields that the API has and Chimera does not: refused by name, unless they ask for what happens
// anyway. A field that would change the answer is never ignored.
//
// Thread safety: pure function.
#pragma once

#include "clients/gateway/body/members.h"
#include "clients/gateway/openai/completion.h"

namespace chimera::gateway::openai {

/// Takes them from `members`, and notes the first that asks for something.
void refuse_unsupported(Members& members, Api api);
/// The same of /v1/responses and /v1/embeddings.
void refuse_unsupported_of_responses(Members& members);
void refuse_unsupported_of_embeddings(Members& members);

}  // namespace chimera::gateway::openai
