// What the calls that go to the engine share. Private to the handlers of the serve endpoint.
//
// Thread safety: on the IO thread or a worker, as the handlers of calls.h.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>

#include "daemon/server/calls.h"

namespace chimera {

/// Texts up to this size take less than a millisecond to encode, so a detour through a worker would
/// cost more than it saves the other clients.
inline constexpr size_t kInlineText = 8 * 1024;

/// Runs `task` now or, for long texts, on the text worker.
void run_by_size(CallContext& context, const std::shared_ptr<Live>& live, size_t bytes,
                 std::function<void()> task);
/// Bytes of a text; none of token ids.
size_t text_size(const wire::Input& input);

ModuleSelection selection_of(wire::ModuleFilter filter);
std::optional<std::chrono::steady_clock::time_point> deadline_at(
    std::chrono::steady_clock::time_point arrived, std::optional<int64_t> deadline_ms);

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
