#include "text/template/chat_template.h"

#include <fmt/format.h>

#include <array>

#include "text/template/builtins/json.h"
#include "text/template/tool_arguments.h"

namespace chimera {
namespace {

using jinja::Value;

constexpr size_t kMaxConfigBytes = size_t{16} << 20;  // some list 100 000 added tokens
constexpr const char* kConfigFile = "tokenizer_config.json";
constexpr const char* kTemplateFile = "chat_template.jinja";
constexpr const char* kToolTemplateFile = "additional_chat_templates/tool_use.jinja";

constexpr std::array<const char*, 7> kSpecialTokens = {
    "bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"};

/// The text of a file, "" when there is none.
Result<std::string> read_if_there(Env& env, const std::string& path, size_t max_bytes) {
  Result<std::string> text = read_file(env, path, max_bytes);
  if (!text.ok() && text.status().code() == Code::kNotFound) return std::string();
  return text;
}

Status parse_into(std::shared_ptr<const jinja::Template>& target, std::string_view source,
                  std::string_view label) {
  auto parsed = jinja::Template::parse(source);
  if (!parsed.ok()) return parsed.status().with_context(label);
  target = std::move(*parsed);
  return {};
}

/// A token's content: a string, or an object with "content".
const std::string* token_content(const Value& value) {
  if (const jinja::Text* text = value.text()) return &text->str();
  const jinja::Dict* object = value.dict();
  const Value* content = object == nullptr ? nullptr : object->find(std::string_view("content"));
  return content == nullptr || content->text() == nullptr ? nullptr : &content->text()->str();
}

/// The value of a request's JSON; none when absent.
Result<Value> client_value(std::string_view json, std::string_view name) {
  if (json.empty()) return Value(jinja::None{});
  auto value = jinja::parse_json(json, jinja::Origin::kClient);
  if (!value.ok()) return value.status().with_context(name);
  return value;
}

Status add_client_value(jinja::Dict& variables, const char* name, std::string_view json) {
  auto value = client_value(json, name);
  if (!value.ok()) return value.status();
  variables.set(Value::string(name), std::move(*value));
  return {};
}

}  // namespace

Result<std::shared_ptr<const ChatTemplate>> ChatTemplate::load(const std::string& dir, Env& env) {
  const auto config = read_if_there(env, dir + "/" + kConfigFile, kMaxConfigBytes);
  if (!config.ok()) return config.status();
  const auto text = read_if_there(env, dir + "/" + kTemplateFile, kMaxConfigBytes);
  if (!text.ok()) return text.status();
  const auto tool_text = read_if_there(env, dir + "/" + kToolTemplateFile, kMaxConfigBytes);
  if (!tool_text.ok()) return tool_text.status();
  auto parsed = parse(*config, *text, *tool_text);
  if (!parsed.ok()) return parsed.status().with_context(dir);
  return parsed;
}

Result<std::shared_ptr<const ChatTemplate>> ChatTemplate::parse(
    std::string_view tokenizer_config_json, std::string_view template_text,
    std::string_view tool_template_text) {
  std::shared_ptr<ChatTemplate> out(new ChatTemplate);
  if (!template_text.empty()) {
    CHIMERA_RETURN_IF_ERROR(parse_into(out->default_, template_text, kTemplateFile));
  }
  if (!tool_template_text.empty()) {
    CHIMERA_RETURN_IF_ERROR(parse_into(out->tool_use_, tool_template_text, kToolTemplateFile));
  }
  if (!tokenizer_config_json.empty()) {
    const Status status = out->read_config(tokenizer_config_json);
    if (!status.ok()) return status.with_context(kConfigFile);
  }
  if (!out->default_ && !out->tool_use_) return std::shared_ptr<const ChatTemplate>();
  return std::shared_ptr<const ChatTemplate>(std::move(out));
}

Status ChatTemplate::read_config(std::string_view json) {
  const auto config = jinja::parse_json(json, jinja::Origin::kTrusted);
  if (!config.ok()) return Status(Code::kDataCorrupt, config.status().message());
  const jinja::Dict* object = config->dict();
  if (object == nullptr) {
    return Status(Code::kDataCorrupt, jinja::type_name(*config) + " (expected an object)");
  }
  for (const char* name : kSpecialTokens) {
    const Value* token = object->find(std::string_view(name));
    const std::string* content = token == nullptr ? nullptr : token_content(*token);
    if (content != nullptr) special_tokens_.emplace_back(name, *content);
  }
  const Value* extra = object->find(std::string_view("extra_special_tokens"));
  if (extra != nullptr && extra->dict() != nullptr) {  // names such as image_token
    for (const auto& [name, token] : extra->dict()->items) {
      const std::string* content = token_content(token);
      if (content != nullptr) special_tokens_.emplace_back(name.text()->str(), *content);
    }
  }
  const Value* templates = object->find(std::string_view("chat_template"));
  if (default_ || templates == nullptr || templates->is_none()) return {};
  return read_templates(*templates);
}

/// One template, or a list of {"name", "template"}.
Status ChatTemplate::read_templates(const Value& templates) {
  if (const jinja::Text* text = templates.text()) {
    return parse_into(default_, text->str(), "chat_template");
  }
  const jinja::Sequence* list = templates.sequence();
  if (list == nullptr) {
    return Status(Code::kDataCorrupt,
                  fmt::format("chat_template: {} (expected a string or a list of templates)",
                              jinja::type_name(templates)));
  }
  for (const Value& entry : list->items) {
    const jinja::Dict* object = entry.dict();
    const Value* name = object == nullptr ? nullptr : object->find(std::string_view("name"));
    const Value* text = object == nullptr ? nullptr : object->find(std::string_view("template"));
    if (name == nullptr || text == nullptr || name->text() == nullptr || text->text() == nullptr) {
      return Status(Code::kDataCorrupt,
                    "chat_template: an entry without \"name\" and \"template\" (expected strings)");
    }
    // The others are chosen by name, which no request can.
    const std::string label = fmt::format("chat_template \"{}\"", name->text()->str());
    if (name->text()->str() == "default") {
      CHIMERA_RETURN_IF_ERROR(parse_into(default_, text->text()->str(), label));
    } else if (name->text()->str() == "tool_use") {
      CHIMERA_RETURN_IF_ERROR(parse_into(tool_use_, text->text()->str(), label));
    }
  }
  if (default_ || tool_use_) return {};
  return Status(Code::kUnimplemented,
                "chat_template: no template is named \"default\" or \"tool_use\"",
                "name one of them \"default\"");
}

Result<jinja::Rendered> ChatTemplate::render(const Request& request) const {
  const bool with_tools = !request.tools.empty();
  const auto& chosen = (with_tools && tool_use_) || !default_ ? tool_use_ : default_;
  if (!with_tools && !default_) {
    return Status(Code::kFailedPrecondition,
                  "chat: the checkpoint has a template for conversations with tools only",
                  "send \"tools\"");
  }
  jinja::Dict variables;
  for (const auto& [name, content] : special_tokens_) {
    variables.set(Value::string(name), Value::string(content));
  }
  const auto messages = client_value(request.messages, "messages");
  if (!messages.ok()) return messages.status();
  variables.set(Value::string("messages"), *messages);
  CHIMERA_RETURN_IF_ERROR(add_client_value(variables, "tools", request.tools));
  CHIMERA_RETURN_IF_ERROR(add_client_value(variables, "documents", request.documents));
  variables.set(Value::string("add_generation_prompt"), Value(request.add_generation_prompt));
  const auto more = client_value(request.variables, "variables");
  if (!more.ok()) return more.status();
  if (const jinja::Dict* object = more->dict()) {
    for (const auto& [name, value] : object->items) variables.set(name, value);
  }
  const ToolArguments arguments(*messages);
  if (arguments.empty()) return chosen->render(variables, request.now);
  // A template that uses the strings as strings has its text; any other gets the objects, and an
  // error that lies elsewhere is told from there.
  auto rendered = chosen->render(variables, request.now, jinja::kMaxSteps, &arguments.encoded());
  if (rendered.ok() || rendered.status().code() == Code::kResourceExhausted) return rendered;
  variables.set(Value::string("messages"), arguments.decoded(*messages));
  return chosen->render(variables, request.now);
}

}  // namespace chimera
