#include "clients/gateway/openai/unsupported.h"

#include <algorithm>
#include <array>
#include <span>

namespace chimera::gateway::openai {
namespace {

using Neutral = bool (*)(const Json&);

bool never(const Json&) { return false; }
bool always(const Json&) { return true; }
bool one(const Json& value) { return value.integer() == 1; }
bool no(const Json& value) { return value.boolean() == false; }
bool empty(const Json& value) { return (value.is_array() || value.is_object()) && value.empty(); }
bool text_only(const Json& value) { return value == Json::array({"text"}); }
bool no_tool(const Json& value) { return value == Json("none") || value == Json("auto"); }
bool zero(const Json& value) { return value.integer() == 0; }
bool off(const Json& value) { return value == Json("disabled"); }
/// An object whose members are all null.
bool nothing(const Json& value) {
  return value.is_object() &&
         std::all_of(value.items().begin(), value.items().end(),
                     [](const auto& member) { return member.value.is_null(); });
}
bool any_tier(const Json& value) { return value == Json("auto") || value == Json("default"); }

struct Field {
  std::string_view name;
  Neutral neutral;  // whether a value asks for nothing
  std::string_view hint = {};
};

constexpr std::array kBoth = {
    // Names of a caller's own, for its bookkeeping.
    Field{"user", always},
};
constexpr std::array kChatOnly = {
    Field{"functions", empty, "tools are there"},
    Field{"function_call", no_tool},
    Field{"modalities", text_only},
    Field{"audio", never},
    Field{"prediction", never},
    Field{"web_search_options", never},
    Field{"reasoning_effort", never, "chat_template_kwargs go to the template"},
    Field{"verbosity", never},
    Field{"store", no},
    Field{"service_tier", any_tier},
    Field{"metadata", always},
    Field{"safety_identifier", always},
    Field{"prompt_cache_key", always},  // equal beginnings are found without it
    Field{"prompt_cache_retention", always},
};
constexpr std::array kResponses = {
    Field{"background", no},
    Field{"context_management", empty},
    Field{"conversation", never, "send the whole conversation in input"},
    Field{"include", empty},
    Field{"max_tool_calls", never},
    Field{"moderation", never},
    Field{"previous_response_id", never, "nothing is kept; send the whole conversation in input"},
    Field{"prompt", never},
    Field{"prompt_cache_options", always},  // as prompt_cache_key
    Field{"reasoning", nothing, "a model that thinks does so unasked"},
    Field{"store", no, "nothing is kept; send the whole conversation in input"},
    Field{"top_logprobs", zero, "/v1/chat/completions has them"},
    Field{"truncation", off},
    Field{"service_tier", any_tier},
    Field{"metadata", always},
    Field{"safety_identifier", always},
    Field{"prompt_cache_key", always},
    Field{"prompt_cache_retention", always},
};
constexpr std::array kTextOnly = {
    Field{"suffix", never},
    Field{"echo", no},
    Field{"best_of", one},
};

constexpr std::array kEmbeddings = {
    Field{"dimensions", never, "vectors are as wide as the model"},
};

void refuse(Members& members, std::span<const Field> fields) {
  for (const Field& field : fields) {
    const Json* value = members.take(field.name);
    if (value != nullptr && !field.neutral(*value)) {
      members.fail(unsupported(field.name, std::string(field.hint)));
    }
  }
}

}  // namespace

void refuse_unsupported(Members& members, Api api) {
  refuse(members, kBoth);
  switch (api) {
    case Api::kChat:
      return refuse(members, kChatOnly);
    case Api::kText:
      return refuse(members, kTextOnly);
  }
}

void refuse_unsupported_of_responses(Members& members) {
  refuse(members, kBoth);
  refuse(members, kResponses);
}

void refuse_unsupported_of_embeddings(Members& members) {
  refuse(members, kBoth);
  refuse(members, kEmbeddings);
}

}  // namespace chimera::gateway::openai
