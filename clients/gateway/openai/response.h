// POST /v1/responses: a request of the Responses API becomes a job. Texts and functions; nothing is
// kept, so that every request brings its whole conversation.
//
// Thread safety: values and pure functions.
#pragma once

#include <string>
#include <variant>

#include "clients/gateway/api/api_error.h"
#include "clients/gateway/api/composition.h"
#include "clients/gateway/dialect/call_rules.h"
#include "clients/gateway/run/job.h"
#include "clients/wire/protocol.h"

namespace chimera::gateway::openai {

struct ResponseRequest {
  std::string model;  // as it was asked for
  wire::Call call;    // a chat
  bool stream = false;
  CallRules rules{};
  bool after_tool = false;  // the conversation ends with a function's result
  Json echo;                // what the answer says of its request
};

/// What the API has and Chimera does not is refused by name, and so is what nobody knows.
std::variant<ResponseRequest, ApiError> read_response_request(const Request& request,
                                                              const ModelNames& names);

/// What answers it, as of now.
Job job_of(ResponseRequest asked);

}  // namespace chimera::gateway::openai
