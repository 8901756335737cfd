// JSON as the wire accepts it: one value, UTF-8 checked, no duplicate keys, bounded depth and
// number of values, so that 4 MiB of brackets cannot become a hundred times that in memory.
//
// Thread safety: free functions.
#pragma once

#include <string>
#include <string_view>
#include <variant>

#include "base/json/json.h"
#include "clients/wire/protocol.h"

namespace chimera::wire {

/// More than the longest token list plus every other field.
inline constexpr size_t kMaxJsonValues = kMaxPromptTokens + 4096;

/// Parses `text` or says at which byte it stops being acceptable. Never echoes the input.
std::variant<Json, Error> parse_strict(std::string_view text);

/// The text of the member `name` as it was written, "" when there is none. REQUIRES: parse_strict
/// accepted `object` and it is an object.
std::string_view raw_member(std::string_view object, std::string_view name);

}  // namespace chimera::wire
