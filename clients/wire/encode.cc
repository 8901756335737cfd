#include "base/json/reader.h"
#include "base/json/writer.h"
#include "clients/wire/protocol.h"
#include "clients/wire/strict_json.h"

namespace chimera::wire {
namespace {

template <class T>
void put(Json& out, const char* name, const std::optional<T>& value) {
  if (value) out[name] = *value;
}

void put_modules(Json& out, const ModuleFilter& filter) {
  Json modules = Json::object();
  put(modules, "only", filter.only);
  if (!filter.exclude.empty()) modules["exclude"] = filter.exclude;
  if (!filter.bias.empty()) modules["bias"] = filter.bias;
  if (!modules.empty()) out["modules"] = std::move(modules);
}

void put_input(Json& out, const char* text_name, const Input& input) {
  if (const auto* text = std::get_if<std::string>(&input)) {
    out[text_name] = *text;
  } else {
    out["tokens"] = std::get<std::vector<int32_t>>(input);
  }
}

void put_options(Json& out, const Generate& call) {
  out["max_tokens"] = call.max_tokens;
  out["temperature"] = call.temperature;
  out["top_p"] = call.top_p;
  out["top_k"] = call.top_k;
  out["min_p"] = call.min_p;
  out["repetition_penalty"] = call.repetition_penalty;
  put(out, "seed", call.seed);
  if (!call.stop.empty()) out["stop"] = call.stop;
  out["ignore_eos"] = call.ignore_eos;
  out["logprobs"] = call.logprobs;
  out["stream"] = call.stream;
  put(out, "deadline_ms", call.deadline_ms);
  put_modules(out, call.modules);
}

void write(Json& out, const Generate& call) {
  put_input(out, "prompt", call.prompt);
  put_options(out, call);
}

void write(Json& out, const Chat& call) { put_options(out, call.options); }

void write(Json& out, const Score& call) {
  put_input(out, "text", call.input);
  out["logits"] = call.logits;
  out["routing"] = call.routing;
  put(out, "deadline_ms", call.deadline_ms);
  put_modules(out, call.modules);
}

void write(Json& out, const Tokenize& call) {
  if (call.conversation) return;
  out["text"] = call.text;
  out["add_special"] = call.add_special;
  out["match_special"] = call.match_special;
}

/// Adds a member as it is written, so that its keys keep their order. What is not JSON travels as
/// null, which the decoder refuses by name.
void add_raw(std::string& object, std::string_view name, const std::string& value) {
  if (value.empty()) return;
  object.pop_back();
  object += ",\"" + std::string(name) + "\":" + (parse_json(value).ok() ? value : "null") + "}";
}

void add_conversation(std::string& object, const Conversation& conversation) {
  add_raw(object, "messages", conversation.messages_json);
  add_raw(object, "tools", conversation.tools_json);
  add_raw(object, "documents", conversation.documents_json);
  add_raw(object, "chat_template_kwargs", conversation.chat_template_kwargs_json);
  add_raw(object, "add_generation_prompt", conversation.add_generation_prompt ? "true" : "false");
}

void write(Json& out, const Detokenize& call) {
  out["tokens"] = call.tokens;
  out["skip_special"] = call.skip_special;
}

void write(Json& out, const Cancel& call) { out["target"] = call.target; }
void write(Json&, const Info&) {}
void write(Json&, const Health&) {}
void write(Json&, const Modules&) {}

void write(Json& out, const Load& call) {
  out["path"] = call.path;
  put(out, "name", call.name);
  put(out, "enabled", call.enabled);
  put(out, "bias", call.bias);
  out["in_flight"] = call.restart ? "restart" : "pin";
}

void write(Json& out, const Unload& call) { out["name"] = call.name; }
void write(Json& out, const Revoke& call) { out["name"] = call.name; }

/// Text that is not JSON travels as null, which the decoder refuses by name.
Json object_of(const std::string& text) {
  Result<Json> value = parse_json(text);
  return value.ok() ? std::move(*value) : Json();
}

void write(Json& out, const Wish& wish) {
  if (wish.deployment_json.empty()) {
    out["composition"] = object_of(wish.composition_json);
    return;
  }
  out["deployment"] = object_of(wish.deployment_json);
  out["directory"] = wish.directory;
}

void write(Json& out, const Plan& call) { write(out, call.wish); }

void write(Json& out, const Apply& call) {
  write(out, call.wish);
  out["in_flight"] = call.restart ? "restart" : "pin";
}

void write(Json& out, const Rollback& call) { put(out, "epoch", call.epoch); }
void write(Json&, const Epochs&) {}

void write(Json& out, const Routing& call) {
  put(out, "layer", call.layer);
  if (call.reset) out["reset"] = true;
}

void write(Json& out, const Enable& call) { out["name"] = call.name; }
void write(Json& out, const Disable& call) { out["name"] = call.name; }
void write(Json&, const Requests&) {}
void write(Json& out, const CancelAny& call) { out["target"] = call.target; }

void write(Json& out, const Bias& call) {
  out["name"] = call.name;
  out["value"] = call.value;
}

void write(Json&, const Stats&) {}
void write(Json& out, const Drain& call) { put(out, "timeout_ms", call.timeout_ms); }
void write(Json&, const Shutdown&) {}

}  // namespace

std::string encode_request(const Request& request) {
  Json out = {{"id", request.id}, {"call", call_name(request.call)}};
  std::visit([&](const auto& call) { write(out, call); }, request.call);
  std::string text = write_json(out);
  if (const auto* chat = std::get_if<Chat>(&request.call)) {
    add_conversation(text, chat->conversation);
  } else if (const auto* tokenize = std::get_if<Tokenize>(&request.call)) {
    if (tokenize->conversation) add_conversation(text, *tokenize->conversation);
  }
  return text;
}

std::string messages_json(const std::vector<ChatMessage>& messages) {
  Json out = Json::array();
  for (const ChatMessage& message : messages) {
    out.push_back({{"role", message.role}, {"content", message.content}});
  }
  return write_json(out);
}

std::string encode_error(std::string_view id, const Error& error) {
  // An unreadable id is null rather than "", which no request can have either but looks like one.
  return write_json({{"id", id.empty() ? Json() : Json(id)},
                     {"event", "error"},
                     {"code", error.code},
                     {"message", error.message},
                     {"hint", error.hint}});
}

}  // namespace chimera::wire
