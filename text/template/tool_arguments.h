// Arguments of tool calls in a conversation's history.
//
// OpenAI's clients keep them as they came, a string of JSON; most templates are written for the
// object that transformers passes and would fail on the string or write it as JSON once more. So
// the strings that hold an object are known to the render, which fails where a template uses one as
// an object; it is then done again with the objects in their place. A template that uses the string
// as a string gets what the client sent, to the last blank.
//
// Thread safety: immutable.
#pragma once

#include <memory>
#include <unordered_map>

#include "text/template/builtins/runtime.h"

namespace chimera {

class ToolArguments {
 public:
  /// Looks through `messages`, at tool_calls[].function.arguments, tool_calls[].arguments and
  /// function_call.arguments. A blank string stands for no arguments, as for other servers.
  explicit ToolArguments(const jinja::Value& messages);

  bool empty() const { return encoded_.empty(); }
  /// The strings; they live as long as the messages given to the constructor.
  const jinja::EncodedObjects& encoded() const { return encoded_; }
  /// `messages` with the objects in place of the strings. REQUIRES: those of the constructor.
  jinja::Value decoded(const jinja::Value& messages) const;

 private:
  jinja::EncodedObjects encoded_;
  std::unordered_map<const jinja::Text*, jinja::Value> objects_;
};

}  // namespace chimera
