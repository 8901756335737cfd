// POST /v1/messages: a request of the Messages API becomes a job.
//
// Thread safety: values and pure functions.
#pragma once

#include <string>
#include <variant>

#include "clients/gateway/api/api_error.h"
#include "clients/gateway/api/composition.h"
#include "clients/gateway/dialect/call_rules.h"
#include "clients/gateway/run/job.h"

namespace chimera::gateway::anthropic {

struct Message {
  std::string model;  // as it was asked for
  wire::Call call;    // a chat
  bool stream = false;
  CallRules rules{};
  bool after_tool = false;  // the conversation ends with a tool's result
};

/// What the API has and Chimera does not is refused by name, and so is what nobody knows.
std::variant<Message, ApiError> read_message(const Request& request, const ModelNames& names);

Job job_of(Message asked);

}  // namespace chimera::gateway::anthropic
