#include "clients/gateway/openai/input_items.h"

#include <fmt/format.h>

#include <map>
#include <optional>

#include "base/quote.h"
#include "clients/gateway/body/members.h"

namespace chimera::gateway::openai {
namespace {

using Text = std::variant<std::string, ApiError>;

/// A text, or parts of the kinds that `kinds` lists, joined.
Text text_of(const Json& content, std::initializer_list<std::string_view> kinds,
             const std::string& where) {
  if (const std::string* text = content.string()) return *text;
  if (!content.is_array()) {
    return bad_field(where, fmt::format("{} (expected a text or parts)", shown(content)));
  }
  std::string out;
  for (size_t i = 0; i < content.size(); ++i) {
    const std::string at = fmt::format("{}[{}]", where, i);
    const std::string* kind = content[i]["type"].string();
    if (kind == nullptr) return bad_field(at + ".type", "missing (expected the kind of the part)");
    if (std::find(kinds.begin(), kinds.end(), *kind) == kinds.end()) {
      return unsupported(fmt::format("{}.type: {}", at, quote(*kind, 40)), "send text");
    }
    const std::string* text = content[i]["text"].string();
    if (text == nullptr) return bad_field(at + ".text", "missing (expected a string)");
    out += *text;
  }
  return out;
}

class Items {
 public:
  explicit Items(std::string first) : first_(std::move(first)) {}

  std::optional<ApiError> add(const Json& item, const std::string& where) {
    const std::string type = item.value("type", "message");
    if (!item.is_object()) {
      return bad_field(where, fmt::format("{} (expected an object)", shown(item)));
    }
    if (type == "message") return message(item, where);
    if (type == "reasoning") return reasoning(item, where);
    if (type == "function_call") return call(item, where);
    if (type == "function_call_output") return result(item, where);
    return unsupported(fmt::format("{}.type: {}", where, quote(type, 40)),
                       "message, reasoning, function_call and function_call_output are there");
  }

  Json finish() {
    close();
    return std::move(list_);
  }

 private:
  void push(Json message) {
    const bool system = message["role"] == Json("system");
    if (list_.empty() && !first_.empty() && !system) {
      list_.push_back({{"role", "system"}, {"content", first_}});
    }
    list_.push_back(std::move(message));
  }

  void close() {
    if (turn_.is_null()) return;
    push(std::move(turn_));
    turn_ = {};
  }

  /// The message of the assistant that is being put together.
  Json& turn() {
    if (turn_.is_null()) turn_ = {{"role", "assistant"}, {"content", ""}};
    return turn_;
  }

  std::optional<ApiError> message(const Json& item, const std::string& where) {
    std::string role = item.value("role", "");
    if (role == "developer") role = "system";
    if (role != "user" && role != "system" && role != "assistant") {
      return bad_field(where + ".role", fmt::format("{} (expected user, system, developer or "
                                                    "assistant)",
                                                    shown(item["role"])));
    }
    auto text = text_of(item["content"], {"input_text", "output_text", "text"}, where + ".content");
    if (auto* error = std::get_if<ApiError>(&text)) return std::move(*error);
    if (role == "assistant") {
      if (turn_.contains("tool_calls")) close();  // words come before calls
      turn()["content"] = turn().value("content", "") + std::get<std::string>(text);
      return std::nullopt;
    }
    close();
    push({{"role", role}, {"content", std::get<std::string>(std::move(text))}});
    return std::nullopt;
  }

  std::optional<ApiError> reasoning(const Json& item, const std::string& where) {
    if (!item["encrypted_content"].is_null()) return unsupported(where + ".encrypted_content");
    if (item["content"].is_null()) return std::nullopt;  // a summary is not what the model wrote
    auto text = text_of(item["content"], {"reasoning_text"}, where + ".content");
    if (auto* error = std::get_if<ApiError>(&text)) return std::move(*error);
    if (turn_.contains("tool_calls")) close();
    turn()["reasoning_content"] =
        turn().value("reasoning_content", "") + std::get<std::string>(text);
    return std::nullopt;
  }

  std::optional<ApiError> call(const Json& item, const std::string& where) {
    const std::string *id = item["call_id"].string(), *name = item["name"].string(),
                      *arguments = item["arguments"].string();
    if (id == nullptr || name == nullptr || arguments == nullptr) {
      return bad_field(where,
                       "function_call without call_id, name and arguments (expected all three)");
    }
    names_[*id] = *name;
    turn()["tool_calls"].push_back({{"id", *id},
                                    {"type", "function"},
                                    {"function", {{"name", *name}, {"arguments", *arguments}}}});
    return std::nullopt;
  }

  std::optional<ApiError> result(const Json& item, const std::string& where) {
    const std::string* id = item["call_id"].string();
    if (id == nullptr) return bad_field(where + ".call_id", "missing (expected a string)");
    auto text = text_of(item["output"], {"input_text", "output_text", "text"}, where + ".output");
    if (auto* error = std::get_if<ApiError>(&text)) return std::move(*error);
    close();
    Json message = {{"role", "tool"},
                    {"tool_call_id", *id},
                    {"content", std::get<std::string>(std::move(text))}};
    const auto name = names_.find(*id);
    if (name != names_.end()) message["name"] = name->second;
    push(std::move(message));
    return std::nullopt;
  }

  const std::string first_;
  Json list_ = Json::array(), turn_;
  std::map<std::string, std::string> names_;  // of calls, by id
};

}  // namespace

std::variant<Json, ApiError> read_input(const Json& input, const std::string& instructions,
                                        const std::string& system) {
  // Instructions hold beside a system message of the items; the alias's words do not.
  Json out = Json::array();
  if (!instructions.empty()) out.push_back({{"role", "system"}, {"content", instructions}});
  Items items(instructions.empty() ? system : "");
  if (input.is_string()) {
    auto problem = items.add({{"role", "user"}, {"content", input}}, "input");
    if (problem) return std::move(*problem);
  } else if (!input.is_array() || input.empty()) {
    return bad_field("input", "missing (expected a text or the conversation)");
  }
  for (size_t i = 0; i < input.size() && input.is_array(); ++i) {
    if (auto problem = items.add(input[i], fmt::format("input[{}]", i))) return std::move(*problem);
  }
  for (Json& message : items.finish()) out.push_back(std::move(message));
  return out;
}

}  // namespace chimera::gateway::openai
