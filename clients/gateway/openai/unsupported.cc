#include "clients/gateway/openai/unsupported.h"

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
constexpr std::array kTextOnly = {
    Field{"suffix", never},
    Field{"echo", no},
    Field{"best_of", one},
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

}  // namespace chimera::gateway::openai
