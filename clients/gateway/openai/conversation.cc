#include "clients/gateway/openai/conversation.h"

#include <fmt/format.h>

#include "base/quote.h"
#include "clients/gateway/body/members.h"

namespace chimera::gateway::openai {
namespace {

/// The text of a list of parts.
std::variant<std::string, ApiError> join_parts(const Json& parts, const std::string& where) {
  std::string text;
  for (size_t i = 0; i < parts.size(); ++i) {
    const std::string name = fmt::format("{}[{}]", where, i);
    const std::string* type = parts[i]["type"].string();
    if (type == nullptr) {
      return bad_field(name + ".type", "missing (expected the kind of the part)");
    }
    if (*type != "text") {
      return unsupported(fmt::format("{}.type: {}", name, quote(*type, 40)), "send text");
    }
    const std::string* piece = parts[i]["text"].string();
    if (piece == nullptr) return bad_field(name + ".text", "missing (expected a string)");
    text += *piece;
  }
  return text;
}

std::variant<Json, ApiError> read_message(const Json& message, const std::string& where) {
  if (!message.is_object()) {
    return bad_field(where, fmt::format("{} (expected an object)", shown(message)));
  }
  Json out = message;
  if (const std::string* role = message["role"].string(); role != nullptr && *role == "developer") {
    out["role"] = "system";
  }
  for (const char* name : {"audio", "function_call"}) {
    if (!message[name].is_null()) return unsupported(fmt::format("{}.{}", where, name));
    out.erase(name);
  }
  // What the API sends back as null in its own answers is absent to a template.
  for (const char* name : {"refusal", "name", "tool_calls", "tool_call_id", "reasoning_content"}) {
    if (message[name].is_null()) out.erase(name);
  }
  if (!message["content"].is_array()) return out;
  auto text = join_parts(message["content"], where + ".content");
  if (auto* error = std::get_if<ApiError>(&text)) return std::move(*error);
  out["content"] = std::get<std::string>(std::move(text));
  return out;
}

}  // namespace

std::variant<Json, ApiError> read_conversation(const Json& messages, const std::string& system) {
  if (!messages.is_array()) {
    return bad_field("messages", fmt::format("{} (expected an array)", shown(messages)));
  }
  Json out = Json::array();
  for (size_t i = 0; i < messages.size(); ++i) {
    auto message = read_message(messages[i], fmt::format("messages[{}]", i));
    if (auto* error = std::get_if<ApiError>(&message)) return std::move(*error);
    Json& read = std::get<Json>(message);
    const std::string* role = read["role"].string();
    const bool brings_own = role != nullptr && *role == "system";
    if (i == 0 && !system.empty() && !brings_own) {
      out.push_back({{"role", "system"}, {"content", system}});
    }
    out.push_back(std::move(read));
  }
  return out;
}

}  // namespace chimera::gateway::openai
