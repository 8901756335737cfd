#include "base/json/reader.h"
#include "base/json/writer.h"
#include "clients/wire/calls.h"
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
  if (!filter.adapters.empty()) modules["adapters"] = filter.adapters;
  if (!modules.empty()) out["modules"] = std::move(modules);
}

void put_input(Json& out, std::string_view text_name, const Input& input) {
  if (const auto* text = std::get_if<std::string>(&input)) {
    out[text_name] = *text;
  } else {
    out["tokens"] = std::get<std::vector<int32_t>>(input);
  }
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

/// Text that is not JSON travels as null, which the decoder refuses by name.
Json object_of(const std::string& text) {
  Result<Json> value = parse_json(text);
  return value.ok() ? std::move(*value) : Json();
}

void put_wish(Json& out, const Wish& wish) {
  if (wish.deployment_json.empty()) {
    out["composition"] = object_of(wish.composition_json);
    return;
  }
  out["deployment"] = object_of(wish.deployment_json);
  out["directory"] = wish.directory;
}

Json constraint_json(const Constraint& constraint) {
  switch (constraint.kind) {
    case Constraint::Kind::kJsonObject:
      return {{"json_object", true}};
    case Constraint::Kind::kJsonSchema:
      return {{"json_schema", object_of(constraint.text)}};
    case Constraint::Kind::kRegex:
      return {{"regex", constraint.text}};
    case Constraint::Kind::kParts:
      return {{"parts", object_of(constraint.text)}};
  }
  return {};
}

/// Visitor of calls.h: writes the fields of a call; those without a value are left out.
class Encoder {
 public:
  explicit Encoder(Json& out) : out_(out) {}

  template <class T>
  void integer(const IntRange& range, const T& value, std::string_view) {
    set(range.name, value);
  }
  template <class T>
  void real(const RealRange& range, const T& value, std::string_view) {
    set(range.name, value);
  }
  void required(const RealRange& range, double value, std::string_view) { set(range.name, value); }
  template <class T>
  void boolean(std::string_view name, const T& value, std::string_view) {
    set(name, value);
  }
  void text(const TextRange& range, const std::string& value, std::string_view) {
    set(range.name, value);
  }
  template <class T>
  void label(const TextRange& range, const T& value, std::string_view) {
    set(range.name, value);
  }
  void list(const TextRange&, std::string_view name, size_t, const std::vector<std::string>& value,
            std::string_view) {
    if (!value.empty()) set(name, value);
  }
  void biases(const RealRange& range, size_t, const std::map<int32_t, double>& value,
              std::string_view) {
    if (value.empty()) return;
    Json biases = Json::object();
    for (const auto& [id, bias] : value) biases[std::to_string(id)] = bias;
    set(range.name, biases);
  }
  void weights(const RealRange& range, size_t, const std::map<std::string, double>& value,
               std::string_view) {
    set(range.name, Json(value));
  }
  void choice(std::string_view name, std::initializer_list<const char*> choices, bool second,
              std::string_view) {
    set(name, choices.begin()[second ? 1 : 0]);
  }
  void tokens(const std::vector<int32_t>& value, std::string_view) { set("tokens", value); }
  void input(const TextRange& range, const Input& value, std::string_view) {
    put_input(out_, range.name, value);
  }
  void constraint(const std::optional<Constraint>& value, std::string_view) {
    if (value) set("constraint", constraint_json(*value));
  }
  void modules(const ModuleFilter& value, std::string_view) { put_modules(out_, value); }
  /// Conversations are added as they were written (add_conversation).
  void conversation(const Conversation&) {}
  bool conversation_instead(const TextRange&, const std::optional<Conversation>& value) {
    return value.has_value();
  }
  void wish(const Wish& value) { put_wish(out_, value); }

 private:
  template <class T>
  void set(std::string_view name, const T& value) {
    out_[name] = value;
  }
  template <class T>
  void set(std::string_view name, const std::optional<T>& value) {
    if (value) out_[name] = *value;
  }

  Json& out_;
};

}  // namespace

std::string encode_request(const Request& request) {
  Json out = {{"id", request.id}, {"call", call_name(request.call)}};
  if (!request.traceparent.empty()) out["traceparent"] = request.traceparent;
  Encoder encoder(out);
  // Descriptions take calls that may change, as decoding does.
  std::visit([&](auto call) { describe(encoder, call); }, request.call);
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
