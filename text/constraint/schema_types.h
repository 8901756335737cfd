// What the keywords of a schema say about types and values, apart from their automaton.
//
// Thread safety: pure functions.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json/json.h"

namespace chimera::constraint {

/// In the order of the bits of a TypeSet.
inline constexpr std::string_view kTypeNames[] = {"null",   "boolean", "integer", "number",
                                                  "string", "array",   "object"};
enum Type : unsigned {
  kNull = 1,
  kBoolean = 2,
  kInteger = 4,
  kNumber = 8,  // integers as well
  kString = 16,
  kArray = 32,
  kObject = 64,
};
using TypeSet = unsigned;
inline constexpr TypeSet kAllTypes = kNull | kBoolean | kNumber | kString | kArray | kObject;

std::optional<TypeSet> type_named(std::string_view name);
/// Whether `value` is of one of `types`.
bool has_type(const Json& value, TypeSet types);
/// The types that a keyword speaks of; 0 when it is none of those.
TypeSet types_of_keyword(std::string_view keyword);
/// Whether a keyword tells readers something and validators nothing.
bool is_annotation(std::string_view keyword);
/// The regular expression of a "format", or empty.
std::string_view format_pattern(std::string_view format);
/// Whether no value fits both: by their types, by constants, or by a required member of objects
/// that tells them apart. Schemas of which this cannot be told are not disjoint.
bool are_disjoint(const Json& a, const Json& b);

}  // namespace chimera::constraint
