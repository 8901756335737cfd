#include "wire/protocol.h"
#include "wire/strict_json.h"

namespace chimera::wire {
namespace {

using nlohmann::json;

template <class T>
void put(json& out, const char* name, const std::optional<T>& value) {
  if (value) out[name] = *value;
}

void put_modules(json& out, const ModuleFilter& filter) {
  json modules = json::object();
  put(modules, "only", filter.only);
  if (!filter.exclude.empty()) modules["exclude"] = filter.exclude;
  if (!filter.bias.empty()) modules["bias"] = filter.bias;
  if (!modules.empty()) out["modules"] = std::move(modules);
}

void put_input(json& out, const char* text_name, const Input& input) {
  if (const auto* text = std::get_if<std::string>(&input)) {
    out[text_name] = *text;
  } else {
    out["tokens"] = std::get<std::vector<int32_t>>(input);
  }
}

void put_options(json& out, const Generate& call) {
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

void write(json& out, const Generate& call) {
  put_input(out, "prompt", call.prompt);
  put_options(out, call);
}

void write(json& out, const Chat& call) {
  json messages = json::array();
  for (const ChatMessage& message : call.messages) {
    messages.push_back({{"role", message.role}, {"content", message.content}});
  }
  out["messages"] = std::move(messages);
  put_options(out, call.options);
}

void write(json& out, const Score& call) {
  put_input(out, "text", call.input);
  out["logits"] = call.logits;
  out["routing"] = call.routing;
  put(out, "deadline_ms", call.deadline_ms);
  put_modules(out, call.modules);
}

void write(json& out, const Tokenize& call) {
  out["text"] = call.text;
  out["add_special"] = call.add_special;
  out["match_special"] = call.match_special;
}

void write(json& out, const Detokenize& call) {
  out["tokens"] = call.tokens;
  out["skip_special"] = call.skip_special;
}

void write(json& out, const Cancel& call) { out["target"] = call.target; }
void write(json&, const Info&) {}
void write(json&, const Health&) {}
void write(json&, const Modules&) {}

void write(json& out, const Load& call) {
  out["path"] = call.path;
  put(out, "name", call.name);
  put(out, "enabled", call.enabled);
  put(out, "bias", call.bias);
  out["in_flight"] = call.restart ? "restart" : "pin";
}

void write(json& out, const Unload& call) { out["name"] = call.name; }
void write(json& out, const Revoke& call) { out["name"] = call.name; }

/// Text that is not JSON travels as null, which the decoder refuses by name.
json composition(const std::string& text) {
  json value = json::parse(text, nullptr, /*allow_exceptions=*/false);
  return value.is_discarded() ? json() : value;
}

void write(json& out, const Plan& call) { out["composition"] = composition(call.composition_json); }

void write(json& out, const Apply& call) {
  out["composition"] = composition(call.composition_json);
  out["in_flight"] = call.restart ? "restart" : "pin";
}

void write(json& out, const Rollback& call) { put(out, "epoch", call.epoch); }
void write(json&, const Epochs&) {}
void write(json& out, const Routing& call) { put(out, "layer", call.layer); }

void write(json& out, const Bias& call) {
  out["name"] = call.name;
  out["value"] = call.value;
}

void write(json&, const Stats&) {}
void write(json& out, const Drain& call) { put(out, "timeout_ms", call.timeout_ms); }
void write(json&, const Shutdown&) {}

}  // namespace

std::string encode_request(const Request& request) {
  json out = {{"id", request.id}, {"call", call_name(request.call)}};
  std::visit([&](const auto& call) { write(out, call); }, request.call);
  return dump(out);
}

std::string encode_error(std::string_view id, const Error& error) {
  json out = {
      {"event", "error"}, {"code", error.code}, {"message", error.message}, {"hint", error.hint}};
  // An unreadable id is null rather than "", which no request can have either but looks like one.
  out["id"] = id.empty() ? json() : json(id);
  return dump(out);
}

}  // namespace chimera::wire
