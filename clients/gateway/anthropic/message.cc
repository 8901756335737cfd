#include "clients/gateway/anthropic/message.h"

#include <fmt/format.h>

#include <array>

#include "clients/gateway/anthropic/conversation.h"
#include "clients/gateway/body/functions.h"
#include "clients/gateway/body/members.h"
#include "clients/gateway/body/wire_call.h"

namespace chimera::gateway::anthropic {
namespace {

using Neutral = bool (*)(const Json&);
struct Field {
  std::string_view name;
  Neutral neutral;  // whether a value asks for nothing
  std::string_view hint = {};
};
bool never(const Json&) { return false; }
bool always(const Json&) { return true; }
bool empty(const Json& value) { return (value.is_array() || value.is_object()) && value.empty(); }
bool any_tier(const Json& value) { return value == Json("auto") || value == Json("standard_only"); }
bool disabled(const Json& value) { return value["type"] == Json("disabled"); }
constexpr std::array kUnsupported = {
    Field{"metadata", always},
    Field{"service_tier", any_tier},
    Field{"thinking", disabled, "a model that thinks does so unasked; its blocks are there"},
    Field{"container", never},
    Field{"mcp_servers", empty},
    Field{"context_management", never},
    Field{"output_config", never},
    Field{"output_format", never},
};

std::variant<Function, ApiError> read_tool(const Json& tool, const std::string& where) {
  if (!tool.is_object()) {
    return bad_field(where, fmt::format("{} (expected an object)", shown(tool)));
  }
  Members members(tool, where + ".");
  const std::string type = members.text("type").value_or("custom");
  if (type != "custom") {
    return unsupported(fmt::format("{}.type: {}", where, shown(type)), "custom is there");
  }
  members.take("cache_control");  // equal beginnings are found without it
  Function out = read_function(members, "input_schema");
  if (auto problem = members.finish()) return *problem;
  return out;
}

class Reader {
 public:
  explicit Reader(const Json& body) : members_(body) {}

  std::variant<Message, ApiError> read(const Request& request, const ModelNames& names) {
    call_.composition(members_, request, names);
    if (!members_.ok()) return *members_.finish();
    out_.model = call_.model();
    members_.take("stream", out_.stream);
    call_.fields()["stream"] = out_.stream;
    if (call_.fields().value("shares", false)) members_.fail(unsupported("chimera.shares"));
    for (const char* name : {"temperature", "top_p", "top_k"}) call_.take(members_, name);
    stops();
    if (const Json* most = members_.take("max_tokens")) {
      call_.fields()["max_tokens"] = *most;
    } else {
      members_.fail(bad_field("max_tokens", "missing (expected tokens of the answer at most)"));
    }
    for (const Field& field : kUnsupported) {
      const Json* value = members_.take(field.name);
      if (value != nullptr && !field.neutral(*value)) {
        members_.fail(unsupported(field.name, std::string(field.hint)));
      }
    }
    tools();
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

  void tools() {
    CallRulesReader rules;
    tool_choice(rules);
    const Json* tools = members_.take("tools");
    if (tools != nullptr && !tools->is_array()) return members_.bad("tools", *tools, "an array");
    for (size_t i = 0; tools != nullptr && i < tools->size(); ++i) {
      auto tool = read_tool(tools->at(i), fmt::format("tools[{}]", i));
      if (auto* error = std::get_if<ApiError>(&tool)) return members_.fail(std::move(*error));
      rules.add(std::get<Function>(std::move(tool)));
    }
    out_.rules = rules.finish(members_, "tool_choice");
    if (out_.rules.any()) call_.fields()["tools"] = *out_.rules.tools;
  }

  void tool_choice(CallRulesReader& rules) {
    const Json* choice = members_.take("tool_choice");
    if (choice == nullptr) return;
    if (!choice->is_object()) return members_.bad("tool_choice", *choice, "an object");
    Members inner(*choice, "tool_choice.");
    const std::string type = inner.text("type").value_or("");
    const auto name = inner.text("name");
    bool single = false;
    inner.take("disable_parallel_tool_use", single);
    if (single) rules.single();
    if (type == "none") {
      rules.forbid();
    } else if (type == "any") {
      rules.demand();
    } else if (type == "tool" && name) {
      rules.demand(*name);
    } else if (type == "tool") {
      inner.fail(bad_field("tool_choice.name", "missing (expected the name of a tool)"));
    } else if (type != "auto") {
      inner.bad("type", type, "auto, any, tool or none");
    }
    if (auto problem = inner.finish()) members_.fail(std::move(*problem));
  }

  void messages() {
    std::string system = call_.system();
    if (const Json* given = members_.take("system")) {
      auto text = text_of(*given, "system");
      if (auto* error = std::get_if<ApiError>(&text)) return members_.fail(std::move(*error));
      system = std::get<std::string>(std::move(text));
    }
    const Json* messages = members_.take("messages");
    auto list = read_messages(messages == nullptr ? Json() : *messages, system);
    if (auto* error = std::get_if<ApiError>(&list)) return members_.fail(std::move(*error));
    Json& read = std::get<Json>(list);
    out_.after_tool = read[read.size() - 1]["role"] == Json("tool");
    call_.fields()["messages"] = std::move(read);
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
