#include "clients/gateway/dialect/dialect.h"

#include <array>

#include "clients/gateway/dialect/marks.h"

namespace chimera::gateway {
namespace {

constexpr const char* kSampleTool = "sample_tool";

bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

}  // namespace

bool has_tools(Dialect dialect) {
  switch (dialect) {
    case Dialect::kPlain:
    case Dialect::kThink:
      return false;
    case Dialect::kHermes:
    case Dialect::kLlama:
    case Dialect::kMistral:
    case Dialect::kDeepSeek:
    case Dialect::kHarmony:
      return true;
  }
  return false;
}

bool writes_special(Dialect dialect) {
  switch (dialect) {
    case Dialect::kPlain:
    case Dialect::kThink:
    case Dialect::kHermes:
      return false;
    case Dialect::kLlama:
    case Dialect::kMistral:
    case Dialect::kDeepSeek:
    case Dialect::kHarmony:
      return true;
  }
  return false;
}

const Json& sample_messages() {
  // The id is one that Mistral's templates take: nine letters and digits.
  static const Json messages = Json::array(
      {Json{{"role", "user"}, {"content", "x"}},
       Json{{"role", "assistant"},
            {"content", ""},
            {"tool_calls",
             Json::array(
                 {Json{{"id", "a1b2c3d4e"},
                       {"type", "function"},
                       {"function", {{"name", kSampleTool}, {"arguments", "{\"a\": 1}"}}}}})}},
       Json{{"role", "tool"},
            {"tool_call_id", "a1b2c3d4e"},
            {"name", kSampleTool},
            {"content", "1"}}});
  return messages;
}

const Json& sample_tools() {
  static const Json tools = Json::array({Json{
      {"type", "function"},
      {"function",
       {{"name", kSampleTool},
        {"description", "x"},
        {"parameters", {{"type", "object"}, {"properties", {{"a", {{"type", "integer"}}}}}}}}}}});
  return tools;
}

Dialect dialect_of(std::string_view rendered) {
  if (contains(rendered, mark::kChannel)) return Dialect::kHarmony;
  if (contains(rendered, mark::kDeepSeekCall)) return Dialect::kDeepSeek;
  if (contains(rendered, mark::kMistralCalls)) return Dialect::kMistral;
  if (contains(rendered, mark::kToolCall)) return Dialect::kHermes;
  if (contains(rendered, mark::kPythonTag)) return Dialect::kLlama;
  // {"name": "sample_tool", "parameters": …}, as the assistant's own words. The description of the
  // tool has other members between the two.
  for (const std::string_view between :
       {"\", \"parameters\": {\"a\"", "\",\"parameters\":{\"a\""}) {
    if (contains(rendered, std::string(kSampleTool) + std::string(between))) return Dialect::kLlama;
  }
  return Dialect::kThink;
}

bool opens_reasoning(std::string_view prompt) {
  while (!prompt.empty() && mark::kSpace.find(prompt.back()) != std::string_view::npos) {
    prompt.remove_suffix(1);
  }
  return prompt.ends_with(mark::kThink) || prompt.ends_with(mark::kMistralThink);
}

}  // namespace chimera::gateway
