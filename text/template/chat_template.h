// The chat template of a checkpoint: how a conversation becomes the text that the model continues.
//
// As in transformers, `chat_template.jinja` wins over `chat_template` of tokenizer_config.json,
// which is one template or a list of named ones; with tools the one named "tool_use" is taken if
// there is one, else "default". The variables are those of transformers' apply_chat_template:
// messages, tools, documents, add_generation_prompt, the special tokens of tokenizer_config.json
// (bos_token, eos_token, …) and whatever else the request names. Arguments of tool calls may be
// objects or, as OpenAI's clients keep them, strings of JSON (tool_arguments.h).
//
// Thread safety: immutable after load; renders may run concurrently.
#pragma once

#include <ctime>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/io/env.h"
#include "base/status.h"
#include "text/template/template.h"

namespace chimera {

class ChatTemplate {
 public:
  /// Reads the files beside the tokenizer in `dir`. Null without any template; data_corrupt or
  /// unimplemented, naming file and line, when there is one that cannot be used.
  static Result<std::shared_ptr<const ChatTemplate>> load(const std::string& dir,
                                                          Env& env = Env::system());
  /// From the texts of the files; an empty `template_text` or `tool_template_text` is absent.
  static Result<std::shared_ptr<const ChatTemplate>> parse(std::string_view tokenizer_config_json,
                                                           std::string_view template_text,
                                                           std::string_view tool_template_text);

  /// A conversation; all texts are JSON, "" for absent.
  struct Request {
    std::string_view messages{};   // array of objects
    std::string_view tools{};      // array
    std::string_view documents{};  // array
    std::string_view variables{};  // object; more variables, which win over the template's own
    bool add_generation_prompt = true;
    std::tm now{};  // local time that strftime_now tells
  };
  /// invalid_argument with the line of the template when it raises or the data does not fit.
  Result<jinja::Rendered> render(const Request& request) const;

 private:
  ChatTemplate() = default;
  Status read_config(std::string_view json);
  Status read_templates(const jinja::Value& templates);

  std::shared_ptr<const jinja::Template> default_, tool_use_;  // one of them is set
  std::vector<std::pair<std::string, std::string>> special_tokens_;
};

}  // namespace chimera
