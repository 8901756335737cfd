#include "clients/wire/describe.h"

#include <fmt/format.h>

#include <utility>

namespace chimera::wire {
namespace {

Json bounded_integer(const IntRange& range) {
  return {{"type", "integer"}, {"minimum", range.min}, {"maximum", range.max}};
}
Json bounded_real(const RealRange& range) {
  return {{"type", "number"},
          {range.min_open ? "exclusiveMinimum" : "minimum", range.min},
          {"maximum", range.max}};
}
// JSON Schema counts characters, the protocol bytes: a text of at most n bytes has at most n
// characters, so the schema takes all that the daemon takes.
Json bounded_text(const TextRange& range) {
  return {{"type", "string"}, {"minLength", range.min > 0 ? 1 : 0}, {"maxLength", range.max}};
}
Json any_object() { return {{"type", "object"}}; }
Json list_of(Json items, size_t least, size_t most) {
  Json out = {{"type", "array"}, {"items", std::move(items)}};
  if (least > 0) out["minItems"] = least;
  out["maxItems"] = most;
  return out;
}

std::string show(const IntRange& range) {
  return fmt::format("an integer from {} to {}", range.min, range.max);
}
std::string show(const RealRange& range) {
  return range.min_open ? fmt::format("a number above {}, at most {}", range.min, range.max)
                        : fmt::format("a number from {} to {}", range.min, range.max);
}
std::string show(const TextRange& range) {
  return fmt::format("text of {} to {} bytes", range.min, range.max);
}

std::string shown(int64_t value) { return fmt::format("{}", value); }
std::string shown(double value) { return fmt::format("{}", value); }
std::string shown(bool value) { return value ? "true" : "false"; }
template <class T>
std::string shown(const std::optional<T>&) {
  return "";
}

Json tokens_schema(size_t least) {
  return list_of(bounded_integer(range::token), least, kMaxPromptTokens);
}

Json modules_schema() {
  const Json names = list_of(bounded_text(range::name), 0, range::kMaxModuleNames);
  return {{"type", "object"},
          {"additionalProperties", false},
          {"properties", Json{{"only", names},
                              {"exclude", names},
                              {"bias", Json{{"type", "object"},
                                            {"maxProperties", range::kMaxModuleNames},
                                            {"additionalProperties", bounded_real(range::bias)}}},
                              {"adapters", names}}}};
}

Json constraint_schema() {
  const Json schema = {{"type", Json::array({"object", "boolean"})}};
  const Json part = {{"type", "object"}};
  return {{"type", "object"},
          {"additionalProperties", false},
          {"minProperties", 1},
          {"maxProperties", 1},
          {"properties", Json{{"json_schema", schema},
                              {"regex", bounded_text(range::regex)},
                              {"json_object", Json{{"const", true}}},
                              {"parts", Json{{"type", "array"}, {"items", part}}}}}};
}

Json messages_schema() {
  const Json message = {{"type", "object"},
                        {"required", Json::array({"role"})},
                        {"properties", Json{{"role", bounded_text(range::role)}}}};
  return list_of(message, 1, range::kMaxMessages);
}

/// Visitor of calls.h: lists the fields of a call that holds its defaults.
class Describer {
 public:
  template <class T>
  void integer(const IntRange& range, const T& value, std::string_view meaning) {
    add(range.name, show(range), bounded_integer(range), shown(value), meaning);
  }
  template <class T>
  void real(const RealRange& range, const T& value, std::string_view meaning) {
    add(range.name, show(range), bounded_real(range), shown(value), meaning);
  }
  void required(const RealRange& range, double, std::string_view meaning) {
    require(range.name, show(range), bounded_real(range), meaning);
  }
  template <class T>
  void boolean(std::string_view name, const T& value, std::string_view meaning) {
    add(name, "true or false", {{"type", "boolean"}}, shown(value), meaning);
  }
  void text(const TextRange& range, const std::string&, std::string_view meaning) {
    require(range.name, show(range), bounded_text(range), meaning);
  }
  void label(const TextRange& range, const std::string&, std::string_view meaning) {
    require(range.name, show(range) + ", no control characters", bounded_text(range), meaning);
  }
  void label(const TextRange& range, const std::optional<std::string>&, std::string_view meaning) {
    add(range.name, show(range) + ", no control characters", bounded_text(range), "", meaning);
  }
  void list(const TextRange& range, std::string_view name, size_t most,
            const std::vector<std::string>&, std::string_view meaning) {
    add(name, fmt::format("at most {}, each {}", most, show(range)),
        list_of(bounded_text(range), 0, most), "none", meaning);
  }
  void biases(const RealRange& range, size_t most, const std::map<int32_t, double>&,
              std::string_view meaning) {
    // Ids are bounded by the vocabulary anyway; the pattern is that of their spelling.
    const Json schema = {{"type", "object"},
                         {"maxProperties", most},
                         {"propertyNames", Json{{"pattern", "^(0|[1-9][0-9]{0,9})$"}}},
                         {"additionalProperties", bounded_real(range)}};
    add(range.name, fmt::format("at most {}: token id, as a text, to {}", most, show(range)),
        schema, "none", meaning);
  }
  void weights(const RealRange& range, size_t most, const std::map<std::string, double>&,
               std::string_view meaning) {
    const Json schema = {{"type", "object"},
                         {"minProperties", 1},
                         {"maxProperties", most},
                         {"propertyNames", Json{{"minLength", 1}}},
                         {"additionalProperties", bounded_real(range)}};
    require(range.name, fmt::format("1 to {}: name, as a text, to {}", most, show(range)), schema,
            meaning);
  }
  void choice(std::string_view name, std::initializer_list<const char*> choices, bool second,
              std::string_view meaning) {
    Json values = Json::array();
    std::string all;
    for (const char* value : choices) {
      values.push_back(value);
      all += fmt::format("{}`{}`", all.empty() ? "" : " or ", value);
    }
    add(name, all, {{"enum", values}}, choices.begin()[second ? 1 : 0], meaning);
  }
  void tokens(const std::vector<int32_t>&, std::string_view meaning) {
    require("tokens", fmt::format("token ids, at most {}", kMaxPromptTokens), tokens_schema(0),
            meaning);
  }
  void input(const TextRange& range, const Input&, std::string_view meaning) {
    add(range.name, show(range), bounded_text(range), "", meaning);
    add("tokens", fmt::format("token ids, 1 to {}", kMaxPromptTokens), tokens_schema(1), "",
        fmt::format("the same as ids; exactly one of `{}` and `tokens`", range.name));
    alternatives.push_back({std::string(range.name), "tokens"});
  }
  void constraint(const std::optional<Constraint>&, std::string_view meaning) {
    add("constraint",
        "one of `json_schema` (a schema), `regex` (text), `json_object` (true), `parts` (a list)",
        constraint_schema(), "any text", meaning);
  }
  void modules(const ModuleFilter&, std::string_view meaning) {
    add("modules", "`only`, `exclude`, `adapters` (names), `bias` (name to number)",
        modules_schema(), "all as composed", meaning);
  }
  void conversation(const Conversation&) {
    parts();
    fields.front().required = true;
  }
  bool conversation_instead(const TextRange& range, const std::optional<Conversation>&) {
    parts();
    alternatives.push_back({std::string(range.name), "messages"});
    return false;
  }
  void wish(const Wish&) {
    add("composition", "an object", any_object(), "", "the block of a deployment file");
    add("deployment", "an object", any_object(), "",
        "a whole deployment file; exactly one of `composition` and `deployment`");
    add("directory", show(range::directory), bounded_text(range::directory), "",
        "of the deployment file, beside `deployment`: where its relative paths begin");
    alternatives.push_back({"composition", "deployment"});
    together = {{"deployment", Json::array({"directory"})},
                {"directory", Json::array({"deployment"})}};
  }

  std::vector<FieldDoc> fields;
  std::vector<std::vector<std::string>> alternatives;
  Json together;  // fields that come with one another only, as JSON Schema's "dependencies"

 private:
  void add(std::string_view name, std::string values, Json schema, std::string absent,
           std::string_view meaning) {
    fields.push_back({std::string(name), std::move(values), std::move(schema), false,
                      std::move(absent), std::string(meaning)});
  }
  void require(std::string_view name, std::string values, Json schema, std::string_view meaning) {
    add(name, std::move(values), std::move(schema), "", meaning);
    fields.back().required = true;
  }
  void parts() {
    const std::string objects = fmt::format("at most {} objects", range::kMaxMessages);
    add("messages", fmt::format("1 to {} objects with a `role`", range::kMaxMessages),
        messages_schema(), "", "the conversation");
    add("tools", objects, list_of(any_object(), 0, range::kMaxMessages), "none",
        "that the answer may call");
    add("documents", objects, list_of(any_object(), 0, range::kMaxMessages), "none",
        "for templates that take them");
    add("chat_template_kwargs", "an object", any_object(), "none",
        "more variables of the template");
    add("add_generation_prompt", "true or false", {{"type", "boolean"}}, "true",
        "end with the beginning of an answer");
  }
};

Describer described(size_t call_index) {
  Describer out;
  Call call = empty_call(call_index);
  std::visit([&](auto& c) { describe(out, c); }, call);
  // What stands beside an alternative is required only as long as the alternative is not taken.
  for (const auto& pair : out.alternatives) {
    for (FieldDoc& field : out.fields) {
      if (field.name == pair.front()) field.required = false;
    }
  }
  return out;
}

Json request_schema(size_t call_index) {
  const CallSpec& spec = kCalls[call_index];
  const Describer call = described(call_index);
  Json properties = {{"id", bounded_text(range::id)},
                     {"call", Json{{"const", spec.name}}},
                     {"traceparent", Json{{"type", "string"}, {"pattern", range::kTrace}}}};
  Json required = Json::array({"id", "call"});
  for (const FieldDoc& field : call.fields) {
    properties[field.name] = field.schema;
    properties[field.name]["description"] = field.meaning;
    if (field.required) required.push_back(field.name);
  }
  Json out = {{"title", fmt::format("{} ({} endpoint)", spec.name,
                                    spec.endpoint == Endpoint::kServe ? "serve" : "control")},
              {"description", spec.purpose},
              {"type", "object"},
              {"additionalProperties", false},
              {"required", std::move(required)},
              {"properties", std::move(properties)}};
  Json all = Json::array();
  for (const auto& pair : call.alternatives) {
    Json one = Json::array();
    for (const std::string& name : pair) one.push_back(Json{{"required", Json::array({name})}});
    all.push_back(Json{{"oneOf", std::move(one)}});
  }
  if (!call.together.is_null()) out["dependencies"] = call.together;
  if (!all.empty()) out["allOf"] = std::move(all);
  return out;
}

}  // namespace

std::vector<FieldDoc> fields_of(size_t call_index) { return described(call_index).fields; }

std::vector<std::vector<std::string>> alternatives_of(size_t call_index) {
  return described(call_index).alternatives;
}

std::string protocol_tables() {
  std::string out;
  for (size_t i = 0; i < kCalls.size(); ++i) {
    const std::vector<FieldDoc> fields = fields_of(i);
    const CallSpec& spec = kCalls[i];
    out += fmt::format("\n**`{}`** ({}) {}.", spec.name,
                       spec.endpoint == Endpoint::kServe ? "serve" : "control", spec.purpose);
    if (fields.empty()) {
      out += " No fields.\n";
      continue;
    }
    out += "\n\n| field | values | when absent | |\n| --- | --- | --- | --- |\n";
    for (const FieldDoc& field : fields) {
      out += fmt::format("| `{}` | {} | {} | {} |\n", field.name, field.values,
                         field.required ? "required" : field.absent, field.meaning);
    }
  }
  return out;
}

Json protocol_schema() {
  Json calls = Json::array();
  for (size_t i = 0; i < kCalls.size(); ++i) calls.push_back(request_schema(i));
  return {{"$schema", "http://json-schema.org/draft-07/schema#"},
          {"title", "Requests of chimera/1"},
          {"description",
           "The JSON frame of a request. Texts are bounded in bytes by the daemon, in characters "
           "here."},
          {"anyOf", std::move(calls)}};  // `cancel` is on both endpoints
}

}  // namespace chimera::wire
