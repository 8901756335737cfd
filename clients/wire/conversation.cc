#include "clients/wire/conversation.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace chimera::wire {
namespace {

bool is_array_of_objects(const Json& value) {
  return value.is_array() && value.size() <= range::kMaxMessages &&
         std::all_of(value.begin(), value.end(), [](const Json& item) { return item.is_object(); });
}

void check_list(Fields& fields, std::string_view call, const char* name) {
  const Json* list = fields.array(name);
  if (list == nullptr || is_array_of_objects(*list)) return;
  fields.fail(
      fmt::format("{}.{}: not a list of at most {} objects", call, name, range::kMaxMessages));
}

/// Content is a text, a list of parts, or null beside tool calls.
void check_message(Fields& fields, const Json& message, const std::string& where) {
  Fields nested(message, where, fields.problems());
  if (!message.is_object()) return;  // said already
  std::string role;
  nested.label(range::role, role);
  const Json& content = message["content"];
  const Json& calls = message["tool_calls"];
  if (!calls.is_null() && !is_array_of_objects(calls)) {
    fields.fail(
        fmt::format("{}.tool_calls: not a list of at most {} objects", where, range::kMaxMessages));
  } else if (content.is_null() && calls.is_null()) {
    fields.fail(where + ".content: missing (expected a string, a list of parts, or tool_calls)");
  } else if (!content.is_null() && !content.is_string() && !is_array_of_objects(content)) {
    fields.fail(where + ".content: neither a string nor a list of parts (objects)");
  }
}

}  // namespace

void check_conversation(Fields& fields, std::string_view call) {
  const Json* messages = fields.array("messages", Fields::kRequired);
  const bool counted =
      messages != nullptr && !messages->empty() && messages->size() <= range::kMaxMessages;
  if (messages != nullptr && !counted) {
    fields.fail(fmt::format("{}.messages: {} messages (expected 1 to {})", call, messages->size(),
                            range::kMaxMessages));
  }
  for (size_t i = 0; counted && i < messages->size(); ++i) {
    check_message(fields, (*messages)[i], fmt::format("{}.messages[{}]", call, i));
  }
  check_list(fields, call, "tools");
  check_list(fields, call, "documents");
  const Json* more = fields.object("chat_template_kwargs");
  if (more == nullptr) return;
  for (const char* taken : {"messages", "tools", "documents", "add_generation_prompt"}) {
    if (more->contains(taken)) {
      fields.fail(fmt::format("{}.chat_template_kwargs: \"{}\" (expected as a field of its own)",
                              call, taken));
    }
  }
}

}  // namespace chimera::wire
