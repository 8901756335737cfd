#include "clients/gateway/anthropic/message.h"

#include <fmt/format.h>

#include <array>

#include "base/quote.h"
#include "clients/gateway/body/members.h"
#include "clients/gateway/body/wire_call.h"

namespace chimera::gateway::anthropic {
namespace {

/// Texts of a `content` or `system`: one, or a list of blocks.
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

using Neutral = bool (*)(const Json&);
struct Field {
  std::string_view name;
  Neutral neutral;  // whether a value asks for nothing
};
bool never(const Json&) { return false; }
bool always(const Json&) { return true; }
bool empty(const Json& value) { return (value.is_array() || value.is_object()) && value.empty(); }
bool any_tier(const Json& value) { return value == Json("auto") || value == Json("standard_only"); }
bool disabled(const Json& value) { return value["type"] == Json("disabled"); }
bool no_tool(const Json& value) {
  return value["type"] == Json("auto") || value["type"] == Json("none");
}
constexpr std::array kUnsupported = {
    Field{"metadata", always},     Field{"service_tier", any_tier},
    Field{"tools", empty},         Field{"tool_choice", no_tool},
    Field{"thinking", disabled},   Field{"container", never},
    Field{"mcp_servers", empty},   Field{"context_management", never},
    Field{"output_config", never}, Field{"output_format", never},
};

class Reader {
 public:
  explicit Reader(const Json& body) : members_(body) {}

  std::variant<Message, ApiError> read(const Request& request, const ModelNames& names) {
    call_.composition(members_, request, names);
    if (!members_.ok()) return *members_.finish();
    out_.model = call_.model();
    members_.take("stream", out_.stream);
    call_.fields()["stream"] = out_.stream;
    for (const char* name : {"temperature", "top_p", "top_k"}) call_.take(members_, name);
    stops();
    if (const Json* most = members_.take("max_tokens")) {
      call_.fields()["max_tokens"] = *most;
    } else {
      members_.fail(bad_field("max_tokens", "missing (expected tokens of the answer at most)"));
    }
    for (const Field& field : kUnsupported) {
      const Json* value = members_.take(field.name);
      if (value != nullptr && !field.neutral(*value)) members_.fail(unsupported(field.name));
    }
    messages();
    if (auto problem = members_.finish()) return *problem;
    auto call = call_.read("chat");
    if (auto* error = std::get_if<ApiError>(&call)) return std::move(*error);
    out_.call = std::get<wire::Call>(std::move(call));
    return std::move(out_);
  }

 private:
  void stops() {
    call_.rename("stop", "stop_sequences");
    const Json* stop = members_.take("stop_sequences");
    if (stop == nullptr || stop->empty()) return;
    call_.fields()["stop"] = *stop;
  }

  void messages() {
    Json list = Json::array();
    std::string system = call_.system();
    if (const Json* given = members_.take("system")) {
      auto text = text_of(*given, "system");
      if (auto* error = std::get_if<ApiError>(&text)) return members_.fail(std::move(*error));
      system = std::get<std::string>(std::move(text));
    }
    if (!system.empty()) list.push_back({{"role", "system"}, {"content", system}});
    const Json* messages = members_.take("messages");
    if (messages == nullptr || !messages->is_array() || messages->empty()) {
      return members_.fail(bad_field("messages", "missing (expected the conversation)"));
    }
    for (size_t i = 0; i < messages->size(); ++i) {
      const std::string where = fmt::format("messages[{}]", i);
      const Json& role = (*messages)[i]["role"];
      if (role != Json("user") && role != Json("assistant")) {
        return members_.fail(bad_field(
            where + ".role", fmt::format("{} (expected user or assistant)", shown(role))));
      }
      auto text = text_of((*messages)[i]["content"], where + ".content");
      if (auto* error = std::get_if<ApiError>(&text)) return members_.fail(std::move(*error));
      list.push_back({{"role", role}, {"content", std::get<std::string>(std::move(text))}});
    }
    if ((*messages)[messages->size() - 1]["role"] == Json("assistant")) {
      return members_.fail(
          unsupported(fmt::format("messages[{}].role: assistant at the end", messages->size() - 1),
                      "an answer cannot be begun for the model; end with a message of the user"));
    }
    call_.fields()["messages"] = std::move(list);
  }

  Members members_;
  WireCall call_;
  Message out_;
};

}  // namespace

std::variant<Message, ApiError> read_message(const Request& request, const ModelNames& names) {
  const auto body = parse_body(request.body);
  if (const auto* error = std::get_if<ApiError>(&body)) return *error;
  return Reader(std::get<Json>(body)).read(request, names);
}

}  // namespace chimera::gateway::anthropic
