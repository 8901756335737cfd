// Dialects: how families of models mark reasoning and calls of tools in the text they write.
//
// Which one a model speaks is seen in how its chat template writes down a call that was made: the
// template and the model's training agree on that, whatever the model is called.
//
// Thread safety: values and pure functions.
#pragma once

#include <optional>
#include <string_view>

#include "base/enum_names.h"
#include "base/json/json.h"

namespace chimera::gateway {

enum class Dialect : uint8_t {
  kPlain,     // text alone: nothing is looked for
  kThink,     // <think> … </think> before the answer; no tools
  kHermes,    // <tool_call>{"name", "arguments"}</tool_call>; Hermes, Qwen. Qwen Coder: XML inside
  kLlama,     // {"name", "parameters"} as the whole answer, or behind <|python_tag|>
  kMistral,   // [TOOL_CALLS] and a list, or name and arguments; [THINK] … [/THINK]
  kDeepSeek,  // <｜tool▁calls▁begin｜> …
  kHarmony,   // channels: analysis, commentary, final; gpt-oss
};
inline constexpr auto kDialectNames =
    enum_names<Dialect>("plain", "think", "hermes", "llama", "mistral", "deepseek", "harmony");

/// How the answer to one prompt is to be read.
struct Reading {
  Dialect dialect = Dialect::kPlain;
  bool opened = false;  // the prompt ends within reasoning that the answer goes on with
};

bool has_tools(Dialect dialect);
/// Whether its marks are special tokens, which a text has only when it is asked for with them.
bool writes_special(Dialect dialect);

/// A conversation whose rendering shows the dialect: a question, a call of a tool, its result; and
/// the tool. As chat templates take them.
const Json& sample_messages();
const Json& sample_tools();
/// The dialect of a template that gave `rendered` for the sample; kThink when it shows no call.
Dialect dialect_of(std::string_view rendered);

/// Whether a prompt ends with a mark that opens reasoning.
bool opens_reasoning(std::string_view prompt);

}  // namespace chimera::gateway
