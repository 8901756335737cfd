#include "clients/gateway/anthropic/conversation.h"

#include <fmt/format.h>

#include <map>
#include <optional>

#include "base/json/writer.h"
#include "base/quote.h"
#include "clients/gateway/body/members.h"

namespace chimera::gateway::anthropic {
namespace {

class Conversation {
 public:
  explicit Conversation(const std::string& system) {
    if (!system.empty()) list_.push_back({{"role", "system"}, {"content", system}});
  }

  std::optional<ApiError> add(const Json& message, const std::string& where) {
    const Json& role = message["role"];
    const bool user = role == Json("user");
    if (!user && role != Json("assistant")) {
      return bad_field(where + ".role",
                       fmt::format("{} (expected user or assistant)", shown(role)));
    }
    turn_ = {{"role", role}, {"content", ""}};
    words_ = false;
    const Json& content = message["content"];
    if (const std::string* text = content.string()) {
      add_text(*text);
    } else if (!content.is_array()) {
      return bad_field(where + ".content",
                       fmt::format("{} (expected a text or blocks)", shown(content)));
    }
    for (size_t i = 0; content.is_array() && i < content.size(); ++i) {
      if (auto problem = block(content[i], user, fmt::format("{}.content[{}]", where, i))) {
        return problem;
      }
    }
    // A message of results alone has no words of its own.
    const bool results = content.is_array() && !content.empty() && user && !words_;
    if (!results) list_.push_back(std::move(turn_));
    return std::nullopt;
  }

  Json finish() { return std::move(list_); }

 private:
  void add_text(const std::string& text) {
    words_ = true;
    turn_["content"] = turn_.value("content", "") + text;
  }

  std::optional<ApiError> block(const Json& block, bool user, const std::string& where) {
    const std::string* type = block["type"].string();
    if (type == nullptr) return bad_field(where + ".type", "missing (expected the kind of block)");
    if (*type == "text") {
      const std::string* text = block["text"].string();
      if (text == nullptr) return bad_field(where + ".text", "missing (expected a string)");
      add_text(*text);
      return std::nullopt;
    }
    if (*type == "tool_result" && user) return result(block, where);
    if (*type == "tool_use" && !user) return call(block, where);
    if (*type == "thinking" && !user) {
      turn_["reasoning_content"] =
          turn_.value("reasoning_content", "") + block.value("thinking", "");
      return std::nullopt;
    }
    return unsupported(
        fmt::format("{}.type: {}", where, quote(*type, 40)),
        user ? "text and tool_result are there" : "text, tool_use and thinking are there");
  }

  std::optional<ApiError> call(const Json& block, const std::string& where) {
    const std::string *id = block["id"].string(), *name = block["name"].string();
    if (id == nullptr || name == nullptr || !block["input"].is_object()) {
      return bad_field(where, "tool_use without id, name and input (expected all three)");
    }
    names_[*id] = *name;
    turn_["tool_calls"].push_back(
        {{"id", *id},
         {"type", "function"},
         {"function", {{"name", *name}, {"arguments", write_json(block["input"])}}}});
    return std::nullopt;
  }

  std::optional<ApiError> result(const Json& block, const std::string& where) {
    const std::string* id = block["tool_use_id"].string();
    if (id == nullptr) return bad_field(where + ".tool_use_id", "missing (expected a string)");
    std::string content;
    if (!block["content"].is_null()) {
      auto text = text_of(block["content"], where + ".content");
      if (auto* error = std::get_if<ApiError>(&text)) return std::move(*error);
      content = std::get<std::string>(std::move(text));
    }
    // Templates have no place for it but the words.
    if (block["is_error"] == Json(true)) content = "Error: " + content;
    Json message = {{"role", "tool"}, {"tool_call_id", *id}, {"content", std::move(content)}};
    const auto name = names_.find(*id);
    if (name != names_.end()) message["name"] = name->second;
    list_.push_back(std::move(message));
    return std::nullopt;
  }

  Json list_ = Json::array(), turn_;
  bool words_ = false;
  std::map<std::string, std::string> names_;  // of calls, by id
};

}  // namespace

std::variant<std::string, ApiError> text_of(const Json& content, const std::string& where) {
  if (const std::string* text = content.string()) return *text;
  if (!content.is_array()) {
    return bad_field(where, fmt::format("{} (expected a text or blocks)", shown(content)));
  }
  std::string out;
  for (size_t i = 0; i < content.size(); ++i) {
    const std::string name = fmt::format("{}[{}]", where, i);
    const std::string* type = content[i]["type"].string();
    if (type == nullptr) return bad_field(name + ".type", "missing (expected the kind of block)");
    if (*type != "text") {
      return unsupported(fmt::format("{}.type: {}", name, quote(*type, 40)), "send text");
    }
    const std::string* text = content[i]["text"].string();
    if (text == nullptr) return bad_field(name + ".text", "missing (expected a string)");
    out += *text;
  }
  return out;
}

std::variant<Json, ApiError> read_messages(const Json& messages, const std::string& system) {
  if (!messages.is_array() || messages.empty()) {
    return bad_field("messages", "missing (expected the conversation)");
  }
  Conversation out(system);
  for (size_t i = 0; i < messages.size(); ++i) {
    if (auto problem = out.add(messages[i], fmt::format("messages[{}]", i))) return *problem;
  }
  const size_t last = messages.size() - 1;
  if (messages[last]["role"] == Json("assistant")) {
    return unsupported(fmt::format("messages[{}].role: assistant at the end", last),
                       "an answer cannot be begun for the model; end with a message of the user");
  }
  return out.finish();
}

}  // namespace chimera::gateway::anthropic
