#include "daemon/server/limits.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace chimera {
namespace {

Status check_context(const Principal& client, EngineRequest* request) {
  if (!client.limits.max_context) return {};
  const int64_t most = *client.limits.max_context;
  const auto prompt = static_cast<int64_t>(request->tokens.size());
  const bool generates = request->kind == EngineRequest::Kind::kGenerate;
  const int64_t most_prompt = generates ? most - 1 : most;
  if (prompt > most_prompt) {
    return {Code::kInvalidArgument,
            fmt::format("the prompt has {} tokens (expected at most {}, limits.max_context of "
                        "client {})",
                        prompt, most_prompt, client.name),
            "shorten it"};
  }
  if (generates) request->max_tokens = std::min(request->max_tokens, most - prompt);
  return {};
}

/// Whether anything was computed: a request may end while it waits. (A prompt that was found in the
/// prefix cache still has its last row computed.)
bool ran(const DoneEvent& done) {
  return done.backbone_rows > 0 || std::any_of(done.modules.begin(), done.modules.end(),
                                               [](const auto& m) { return m.second.rows > 0; });
}

}  // namespace

Status apply_limits(const Meters& meters, Live& live, EngineRequest* request) {
  const PrincipalPtr client = live.peer().principal;
  if (client == nullptr) return {};
  const ClientLimits& limits = client->limits;
  request->account =
      std::make_shared<const Account>(Account{client->name, limits.in_flight, limits.queued});
  const bool generates = request->kind == EngineRequest::Kind::kGenerate;
  if (limits.max_tokens) request->max_tokens = std::min(request->max_tokens, *limits.max_tokens);
  CHIMERA_RETURN_IF_ERROR(check_context(*client, request));
  const int64_t taken = static_cast<int64_t>(request->tokens.size()) +
                        (generates ? std::max<int64_t>(0, request->max_tokens) : 0);
  if (meters.budget != nullptr) CHIMERA_RETURN_IF_ERROR(meters.budget->take(*client, taken));
  live.settle = [meters, client, taken](const DoneEvent* done) {
    const int64_t used =
        done != nullptr && ran(*done) ? done->prompt_tokens + done->completion_tokens : 0;
    if (meters.budget != nullptr) meters.budget->give_back(*client, taken - used);
    if (meters.usage != nullptr && done != nullptr) meters.usage->add(client->name, *done);
  };
  return {};
}

}  // namespace chimera
