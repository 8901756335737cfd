// The shape of a conversation on the wire: what any chat template may rely on.
//
// Thread safety: free function.
#pragma once

#include <string_view>

#include "clients/wire/fields.h"

namespace chimera::wire {

/// Checks messages, tools, documents and chat_template_kwargs of `fields` without reading them.
/// `call` names the call in messages.
void check_conversation(Fields& fields, std::string_view call);

}  // namespace chimera::wire
