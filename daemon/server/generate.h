// What `generate` and `chat` share. Private to the handlers of the serve endpoint.
//
// Thread safety: on the IO thread or a worker, as the handlers of calls.h.
#pragma once

#include <memory>
#include <optional>

#include "daemon/server/calls.h"

namespace chimera {

Status no_tokenizer();
Status draining();

/// The engine's request for the options of `call`, whose prompt is left alone; sets what `live`
/// needs to know of them.
EngineRequest generate_request(const CallContext& context, Live& live, wire::Generate& call);

/// Compiles what `asked` says, if anything, into `request`. Takes up to a second: on a worker.
Status constrain(CallContext& context, const std::optional<wire::Constraint>& asked,
                 EngineRequest& request);

/// Hands a request to the engine; `live` gets its events.
void submit(CallContext& context, const std::shared_ptr<Live>& live, EngineRequest request);

/// `tokenize` of a conversation: its tokens and the text they came from (chat.cc).
void tokenize_chat(CallContext& context, std::shared_ptr<Live> live, wire::Conversation call);

}  // namespace chimera
