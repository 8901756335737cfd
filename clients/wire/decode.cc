#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/json/writer.h"
#include "clients/wire/conversation.h"
#include "clients/wire/fields.h"
#include "clients/wire/protocol.h"
#include "clients/wire/strict_json.h"

namespace chimera::wire {
namespace {

struct CallSpec {
  std::string_view name;
  Endpoint endpoint;
  Call empty;
};

// In the order of the alternatives of Call, so that an index finds its row.
const std::array<CallSpec, std::variant_size_v<Call>>& specs() {
  using enum Endpoint;
  static const std::array<CallSpec, std::variant_size_v<Call>> table = {{
      {"generate", kServe, Generate{}},
      {"chat", kServe, Chat{}},
      {"score", kServe, Score{}},
      {"tokenize", kServe, Tokenize{}},
      {"detokenize", kServe, Detokenize{}},
      {"cancel", kServe, Cancel{}},
      {"info", kServe, Info{}},
      {"health", kServe, Health{}},
      {"modules", kControl, Modules{}},
      {"load", kControl, Load{}},
      {"unload", kControl, Unload{}},
      {"revoke", kControl, Revoke{}},
      {"plan", kControl, Plan{}},
      {"apply", kControl, Apply{}},
      {"rollback", kControl, Rollback{}},
      {"epochs", kControl, Epochs{}},
      {"routing", kControl, Routing{}},
      {"bias", kControl, Bias{}},
      {"enable", kControl, Enable{}},
      {"disable", kControl, Disable{}},
      {"requests", kControl, Requests{}},
      {"cancel", kControl, CancelAny{}},
      {"stats", kControl, Stats{}},
      {"drain", kControl, Drain{}},
      {"shutdown", kControl, Shutdown{}},
  }};
  return table;
}

void read_modules(Fields& fields, ModuleFilter& filter) {
  const Json* object = fields.object("modules");
  if (object == nullptr) return;
  Fields nested(*object, "modules");
  if (nested.has("only")) filter.only.emplace();
  std::vector<std::string> only;
  nested.list(range::name, "only", range::kMaxModuleNames, only);
  if (filter.only) filter.only = std::move(only);
  nested.list(range::name, "exclude", range::kMaxModuleNames, filter.exclude);
  nested.map(range::bias, filter.bias);
  fields.adopt(nested.finish());
}

/// Exactly one of the text field and `tokens`.
void read_input(Fields& fields, const TextRange& text_range, Input& input) {
  std::optional<std::string> text;
  std::vector<int32_t> tokens;
  const bool has_tokens = fields.has(range::token.name);
  fields.text(text_range, text);
  fields.tokens(tokens, /*min_count=*/1, Fields::kOptional);
  if (fields.has(text_range.name) == has_tokens) {
    fields.fail(fmt::format("{} \"{}\" and \"tokens\" (expected exactly one of them)",
                            has_tokens ? "both" : "neither", text_range.name));
  }
  if (has_tokens) {
    input = std::move(tokens);
  } else if (text) {
    input = std::move(*text);
  }
}

void read_options(Fields& fields, Generate& out) {
  fields.integer(range::max_tokens, out.max_tokens);
  fields.real(range::temperature, out.temperature);
  fields.real(range::top_p, out.top_p);
  fields.integer(range::top_k, out.top_k);
  fields.real(range::min_p, out.min_p);
  fields.real(range::repetition_penalty, out.repetition_penalty);
  fields.integer(range::seed, out.seed);
  fields.list(range::stop, range::stop.name, range::kMaxStops, out.stop);
  fields.boolean("ignore_eos", out.ignore_eos);
  fields.boolean("logprobs", out.logprobs);
  fields.boolean("stream", out.stream);
  fields.integer(range::deadline_ms, out.deadline_ms);
  read_modules(fields, out.modules);
}

void read(Fields& fields, Generate& out) {
  read_input(fields, range::prompt, out.prompt);
  read_options(fields, out);
}

void read(Fields& fields, Chat& out) {
  check_conversation(fields, "chat");
  fields.boolean("add_generation_prompt", out.conversation.add_generation_prompt);
  read_options(fields, out.options);
}

void read(Fields& fields, Score& out) {
  read_input(fields, range::text, out.input);
  fields.boolean("logits", out.logits);
  fields.boolean("routing", out.routing);
  fields.integer(range::deadline_ms, out.deadline_ms);
  read_modules(fields, out.modules);
}

void read(Fields& fields, Tokenize& out) {
  if (!fields.has("messages")) {
    fields.text(range::text, out.text);
    fields.boolean("add_special", out.add_special);
    fields.boolean("match_special", out.match_special);
    return;
  }
  out.conversation.emplace();
  check_conversation(fields, "tokenize");
  fields.boolean("add_generation_prompt", out.conversation->add_generation_prompt);
}

void read(Fields& fields, Detokenize& out) {
  fields.tokens(out.tokens, /*min_count=*/0, Fields::kRequired);
  fields.boolean("skip_special", out.skip_special);
}

void read(Fields& fields, Cancel& out) { fields.label(range::target, out.target); }
void read(Fields&, Info&) {}
void read(Fields&, Health&) {}
void read(Fields&, Modules&) {}
void read(Fields& fields, Unload& out) { fields.label(range::name, out.name); }
void read(Fields& fields, Revoke& out) { fields.label(range::name, out.name); }
void read(Fields&, Epochs&) {}
void read(Fields&, Stats&) {}
void read(Fields&, Shutdown&) {}

bool read_in_flight(Fields& fields) {
  return fields.choice("in_flight", {"pin", "restart"}) == size_t{1};
}

void read(Fields& fields, Load& out) {
  fields.label(range::path, out.path);
  fields.label(range::name, out.name);
  fields.boolean("enabled", out.enabled);
  fields.real(range::bias, out.bias);
  out.restart = read_in_flight(fields);
}

/// The objects go on as text: their own reader checks them, with the rules of deployment files.
void read(Fields& fields, Wish& out) {
  if (!fields.has("deployment")) {
    const Json* object = fields.object("composition", Fields::kRequired);
    if (object != nullptr) out.composition_json = write_json(*object);
    return;
  }
  if (fields.has("composition")) {
    fields.fail("both \"composition\" and \"deployment\" (expected exactly one of them)");
  }
  fields.skip("composition");
  const Json* object = fields.object("deployment");
  if (object != nullptr) out.deployment_json = write_json(*object);
  fields.label(range::directory, out.directory);
}

void read(Fields& fields, Plan& out) { read(fields, out.wish); }

void read(Fields& fields, Apply& out) {
  read(fields, out.wish);
  out.restart = read_in_flight(fields);
}

void read(Fields& fields, Rollback& out) { fields.integer(range::epoch, out.epoch); }

void read(Fields& fields, Routing& out) {
  fields.integer(range::layer, out.layer);
  fields.boolean("reset", out.reset);
}

void read(Fields& fields, Enable& out) { fields.label(range::name, out.name); }
void read(Fields& fields, Disable& out) { fields.label(range::name, out.name); }
void read(Fields&, Requests&) {}
void read(Fields& fields, CancelAny& out) { fields.label(range::target, out.target); }

void read(Fields& fields, Bias& out) {
  fields.label(range::name, out.name);
  fields.real(range::value, out.value, Fields::kRequired);
}

void read(Fields& fields, Drain& out) { fields.integer(range::timeout_ms, out.timeout_ms); }

/// The id alone, so that any later problem can be answered to its request.
std::optional<std::string> read_id(const Json& object) {
  if (!object.is_object()) return std::nullopt;
  Fields fields(object, "request");
  std::string id;
  fields.label(range::id, id);
  if (!fields.ok()) return std::nullopt;
  return id;
}

Error unknown_call(std::string_view name, Endpoint endpoint) {
  std::vector<std::string> here;
  for (const CallSpec& spec : specs()) {
    if (spec.endpoint == endpoint) here.emplace_back(spec.name);
  }
  const std::string guess = nearest(name, here);
  return {"invalid_argument",
          fmt::format("call: {} (expected one of {})", quote(name), fmt::join(here, ", ")),
          guess.empty() ? "see clients/PROTOCOL.md" : "did you mean \"" + guess + "\"?"};
}

/// The parts of a conversation as they were written.
void take_conversation(std::string_view request, Conversation& out) {
  out.messages_json = raw_member(request, "messages");
  out.tools_json = raw_member(request, "tools");
  out.documents_json = raw_member(request, "documents");
  out.chat_template_kwargs_json = raw_member(request, "chat_template_kwargs");
}

std::variant<const CallSpec*, Error> find_call(Fields& fields, Endpoint endpoint) {
  std::string name;
  fields.label(TextRange{"call", 1, 32}, name);
  if (!fields.ok()) return *fields.finish();
  // `cancel` is on both endpoints and differs.
  auto it = std::find_if(specs().begin(), specs().end(), [&](const CallSpec& spec) {
    return spec.name == name && spec.endpoint == endpoint;
  });
  if (it == specs().end()) {
    it = std::find_if(specs().begin(), specs().end(),
                      [&](const CallSpec& spec) { return spec.name == name; });
  }
  if (it == specs().end()) return unknown_call(name, endpoint);
  if (it->endpoint == endpoint) return &*it;
  const bool serve = it->endpoint == Endpoint::kServe;
  return Error{"invalid_argument",
               fmt::format("call: \"{}\" on the {} endpoint (expected on the {} endpoint)", name,
                           serve ? "control" : "serve", serve ? "serve" : "control"),
               fmt::format("send it to the {} endpoint", serve ? "serve" : "control")};
}

}  // namespace

std::string_view call_name(const Call& call) { return specs()[call.index()].name; }
Endpoint endpoint_of(const Call& call) { return specs()[call.index()].endpoint; }

std::variant<Request, Error> decode_request(std::string_view text, Endpoint endpoint,
                                            std::string* id_out) {
  id_out->clear();
  if (text.size() > kMaxMessageBytes) {
    return Error{
        "invalid_argument",
        fmt::format("request: {} bytes (expected at most {})", text.size(), kMaxMessageBytes),
        "send the text in parts"};
  }
  auto parsed = parse_strict(text);
  if (auto* error = std::get_if<Error>(&parsed)) return std::move(*error);
  const Json& object = std::get<Json>(parsed);

  if (auto id = read_id(object)) *id_out = std::move(*id);
  Fields envelope(object, "request");
  Request request;
  envelope.label(range::id, request.id);
  auto found = find_call(envelope, endpoint);
  if (auto* error = std::get_if<Error>(&found)) return std::move(*error);

  const CallSpec& spec = *std::get<const CallSpec*>(found);
  request.call = spec.empty;
  Fields fields(object, std::string(spec.name));
  fields.skip("id");
  fields.skip("call");
  std::visit([&](auto& call) { read(fields, call); }, request.call);
  if (auto error = fields.finish()) return std::move(*error);
  if (auto* chat = std::get_if<Chat>(&request.call)) {
    take_conversation(text, chat->conversation);
  } else if (auto* tokenize = std::get_if<Tokenize>(&request.call)) {
    if (tokenize->conversation) take_conversation(text, *tokenize->conversation);
  }
  return request;
}

}  // namespace chimera::wire
