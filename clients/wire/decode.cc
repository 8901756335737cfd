#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/json/writer.h"
#include "base/quote.h"
#include "base/suggest.h"
#include "clients/wire/calls.h"
#include "clients/wire/conversation.h"
#include "clients/wire/fields.h"
#include "clients/wire/protocol.h"
#include "clients/wire/strict_json.h"

namespace chimera::wire {
namespace {

void read_modules(Fields& fields, ModuleFilter& filter) {
  const Json* object = fields.object("modules");
  if (object == nullptr) return;
  Fields nested(*object, "modules", fields.problems());
  if (nested.has("only")) filter.only.emplace();
  std::vector<std::string> only;
  nested.list(range::name, "only", range::kMaxModuleNames, only);
  if (filter.only) filter.only = std::move(only);
  nested.list(range::name, "exclude", range::kMaxModuleNames, filter.exclude);
  nested.map(range::bias, filter.bias);
  nested.list(range::name, "adapters", range::kMaxModuleNames, filter.adapters);
  nested.finish();
}

/// Exactly one of its four fields. Schema and parts go on as text: the daemon's compiler checks
/// them.
void read_constraint(Fields& fields, std::optional<Constraint>& out) {
  const Json* object = fields.object("constraint");
  if (object == nullptr) return;
  Fields nested(*object, "constraint", fields.problems());
  Constraint found;
  nested.skip("json_schema");
  if (const Json* schema = object->find("json_schema")) {
    found = {Constraint::Kind::kJsonSchema, write_json(*schema)};
    if (!schema->is_object() && !schema->is_boolean()) {
      nested.fail(
          fmt::format("constraint.json_schema: {} (expected a schema: an object, true or "
                      "false)",
                      schema->kind_name()));
    }
  }
  nested.skip("parts");
  if (const Json* parts = object->find("parts")) {
    found = {Constraint::Kind::kParts, write_json(*parts)};
    if (!parts->is_array()) {
      nested.fail(fmt::format("constraint.parts: {} (expected a list)", parts->kind_name()));
    }
  }
  if (nested.has("regex")) {
    found.kind = Constraint::Kind::kRegex;
    nested.text(range::regex, found.text);
  }
  bool any_object = true;
  nested.boolean("json_object", any_object);
  nested.skip("regex");
  nested.finish();
  if (!any_object) nested.fail("constraint.json_object: false (expected true, or none of it)");
  if (object->size() != 1) {
    nested.fail("constraint: expected exactly one of json_schema, regex, json_object and parts");
  }
  out = std::move(found);
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

/// The objects go on as text: their own reader checks them, with the rules of deployment files.
void read_wish(Fields& fields, Wish& out) {
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

/// Visitor of calls.h: reads the fields of a call.
class Decoder {
 public:
  explicit Decoder(Fields& fields, std::string_view call) : fields_(fields), call_(call) {}

  template <class T>
  void integer(const IntRange& range, T& out, std::string_view) {
    fields_.integer(range, out);
  }
  template <class T>
  void real(const RealRange& range, T& out, std::string_view) {
    fields_.real(range, out);
  }
  void required(const RealRange& range, double& out, std::string_view) {
    fields_.real(range, out, Fields::kRequired);
  }
  template <class T>
  void boolean(std::string_view name, T& out, std::string_view) {
    fields_.boolean(name, out);
  }
  void text(const TextRange& range, std::string& out, std::string_view) {
    fields_.text(range, out);
  }
  template <class T>
  void label(const TextRange& range, T& out, std::string_view) {
    fields_.label(range, out);
  }
  void list(const TextRange& range, std::string_view name, size_t most,
            std::vector<std::string>& out, std::string_view) {
    fields_.list(range, name, most, out);
  }
  void biases(const RealRange& range, size_t most, std::map<int32_t, double>& out,
              std::string_view) {
    fields_.map(range, most, out);
  }
  void weights(const RealRange& range, size_t most, std::map<std::string, double>& out,
               std::string_view) {
    fields_.weights(range, most, out);
  }
  void choice(std::string_view name, std::initializer_list<const char*> choices, bool& second,
              std::string_view) {
    second = fields_.choice(name, choices) == size_t{1};
  }
  void tokens(std::vector<int32_t>& out, std::string_view) {
    fields_.tokens(out, /*min_count=*/0, Fields::kRequired);
  }
  void input(const TextRange& text_range, Input& out, std::string_view) {
    read_input(fields_, text_range, out);
  }
  void constraint(std::optional<Constraint>& out, std::string_view) {
    read_constraint(fields_, out);
  }
  void modules(ModuleFilter& out, std::string_view) { read_modules(fields_, out); }
  /// Its parts are taken from the text of the request (take_conversation).
  void conversation(Conversation& out) {
    check_conversation(fields_, call_);
    fields_.boolean("add_generation_prompt", out.add_generation_prompt);
  }
  bool conversation_instead(const TextRange&, std::optional<Conversation>& out) {
    if (!fields_.has("messages")) return false;
    conversation(out.emplace());
    return true;
  }
  void wish(Wish& out) { read_wish(fields_, out); }

 private:
  Fields& fields_;
  const std::string_view call_;
};

/// The call of index `index`, with its defaults.
template <size_t... I>
Call make_empty(size_t index, std::index_sequence<I...>) {
  Call call;
  (void)((I == index && (call.emplace<I>(), true)) || ...);
  return call;
}

/// The id alone, so that any later problem can be answered to its request.
std::optional<std::string> read_id(const Json& object) {
  if (!object.is_object()) return std::nullopt;
  RequestProblems problems;
  Fields fields(object, "request", problems);
  std::string id;
  fields.label(range::id, id);
  if (!problems.empty()) return std::nullopt;
  return id;
}

Error unknown_call(std::string_view name, Endpoint endpoint) {
  std::vector<std::string_view> here;
  for (const CallSpec& spec : kCalls) {
    if (spec.endpoint == endpoint) here.emplace_back(spec.name);
  }
  const std::string_view guess = nearest(name, here);
  return {"invalid_argument",
          fmt::format("call: {} (expected one of {})", quote(name), fmt::join(here, ", ")),
          guess.empty() ? "see clients/PROTOCOL.md" : fmt::format("did you mean \"{}\"?", guess)};
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
  if (auto error = fields.problems().error()) return std::move(*error);
  // `cancel` is on both endpoints and differs.
  auto it = std::find_if(kCalls.begin(), kCalls.end(), [&](const CallSpec& spec) {
    return spec.name == name && spec.endpoint == endpoint;
  });
  if (it == kCalls.end()) {
    it = std::find_if(kCalls.begin(), kCalls.end(),
                      [&](const CallSpec& spec) { return spec.name == name; });
  }
  if (it == kCalls.end()) return unknown_call(name, endpoint);
  if (it->endpoint == endpoint) return &*it;
  const bool serve = it->endpoint == Endpoint::kServe;
  return Error{"invalid_argument",
               fmt::format("call: \"{}\" on the {} endpoint (expected on the {} endpoint)", name,
                           serve ? "control" : "serve", serve ? "serve" : "control"),
               fmt::format("send it to the {} endpoint", serve ? "serve" : "control")};
}

}  // namespace

Call empty_call(size_t index) {
  return make_empty(index, std::make_index_sequence<std::variant_size_v<Call>>());
}

std::string_view call_name(const Call& call) { return kCalls[call.index()].name; }
bool wants_receipt(const Call& call) {
  if (const auto* generate = std::get_if<Generate>(&call)) return generate->receipt;
  if (const auto* chat = std::get_if<Chat>(&call)) return chat->options.receipt;
  const auto* score = std::get_if<Score>(&call);
  return score != nullptr && score->receipt;
}
Endpoint endpoint_of(const Call& call) { return kCalls[call.index()].endpoint; }

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
  RequestProblems problems;
  Fields envelope(object, "request", problems);
  Request request;
  envelope.label(range::id, request.id);
  envelope.trace(request.traceparent);
  auto found = find_call(envelope, endpoint);
  if (auto* error = std::get_if<Error>(&found)) return std::move(*error);

  const CallSpec& spec = *std::get<const CallSpec*>(found);
  request.call = empty_call(static_cast<size_t>(&spec - kCalls.data()));
  Fields fields(object, std::string(spec.name), problems);
  fields.skip("id");
  fields.skip("call");
  fields.skip(range::traceparent.name);
  Decoder decoder(fields, spec.name);
  std::visit([&](auto& call) { describe(decoder, call); }, request.call);
  fields.finish();
  if (auto error = problems.error()) return std::move(*error);
  if (auto* chat = std::get_if<Chat>(&request.call)) {
    take_conversation(text, chat->conversation);
  } else if (auto* tokenize = std::get_if<Tokenize>(&request.call)) {
    if (tokenize->conversation) take_conversation(text, *tokenize->conversation);
  }
  return request;
}

}  // namespace chimera::wire
