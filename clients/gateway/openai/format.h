// What the words of an answer are to be: `response_format` of chats, `text.format` of responses.
//
// Thread safety: pure function.
#pragma once

#include "base/json/json.h"
#include "clients/gateway/body/members.h"

namespace chimera::gateway::openai {

enum class FormatShape : uint8_t {
  kNested,  // {"type": "json_schema", "json_schema": {"name", "schema", …}}
  kFlat,    // {"type": "json_schema", "name", "schema", …}
};

/// Takes `format` apart, which is called `name` and is a value of `members`: the constraint of the
/// wire, null for any text. Every schema is kept to strictly.
Json read_format(Members& members, std::string_view name, const Json& format, FormatShape shape);

}  // namespace chimera::gateway::openai
