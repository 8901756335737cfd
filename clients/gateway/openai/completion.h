// A request for a completion, translated: what the daemon is asked and how the answer is to look.
//
// Thread safety: values and pure functions.
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "clients/gateway/api/api_error.h"
#include "clients/gateway/api/composition.h"
#include "clients/gateway/dialect/call_rules.h"
#include "clients/gateway/run/job.h"
#include "clients/wire/protocol.h"

namespace chimera::gateway::openai {

enum class Api : uint8_t { kChat, kText };  // /v1/chat/completions, /v1/completions

struct Completion {
  Api api = Api::kChat;
  std::string model;              // as it was asked for
  std::vector<wire::Call> calls;  // one for each choice, in their order
  size_t per_prompt = 1;          // choices of each prompt; those of one follow one another
  bool stream = false;
  bool include_usage = false;  // of a stream
  bool logprobs = false;
  int64_t top_logprobs = 0;  // alternatives beside them
  bool shares = false;       // modules' shares of every token, in its chunk
  CallRules rules{};
  bool after_tool = false;  // of a chat: it ends with a tool's result
};

/// Reads the body of a request. What the API has and Chimera does not is refused by name, and so is
/// what nobody knows; null counts as absent.
std::variant<Completion, ApiError> read_completion(Api api, const Request& request,
                                                   const ModelNames& names);

/// What answers it, as of now.
Job job_of(Completion asked);

}  // namespace chimera::gateway::openai
