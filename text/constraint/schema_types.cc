#include "text/constraint/schema_types.h"

#include <algorithm>
#include <array>

namespace chimera::constraint {
namespace {

struct KeywordType {
  std::string_view keyword;
  TypeSet types;
};
constexpr KeywordType kKeywords[] = {
    {"properties", kObject}, {"required", kObject},         {"additionalProperties", kObject},
    {"items", kArray},       {"prefixItems", kArray},       {"minItems", kArray},
    {"maxItems", kArray},    {"minLength", kString},        {"maxLength", kString},
    {"pattern", kString},    {"format", kString},           {"minimum", kNumber},
    {"maximum", kNumber},    {"exclusiveMinimum", kNumber}, {"exclusiveMaximum", kNumber},
};

constexpr std::string_view kAnnotations[] = {
    "title",     "description", "default", "examples", "deprecated",  "readOnly",
    "writeOnly", "$comment",    "$schema", "$defs",    "definitions", "contentMediaType"};

// Not the year 0, which readers differ on, nor leap days: that would take years as alternatives.
#define CHIMERA_DATE                                                                               \
  "([1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])-"                                          \
  "((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]" \
  "|2[0-8]))"
#define CHIMERA_TIME                                         \
  "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?" \
  "(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"

struct Format {
  std::string_view name, pattern;
};
constexpr Format kFormats[] = {
    {"date", "^" CHIMERA_DATE "$"},
    {"time", "^" CHIMERA_TIME "$"},
    {"date-time", "^" CHIMERA_DATE "T" CHIMERA_TIME "$"},
    {"uuid", "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"},
    {"email",
     "^[A-Za-z0-9_+-]+(\\.[A-Za-z0-9_+-]+){0,8}@([a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?\\.){1,4}"
     "[a-z]{2,12}$"},
    {"ipv4",
     "^((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\\.){3}"
     "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])$"},
};
#undef CHIMERA_DATE
#undef CHIMERA_TIME

/// The types that a schema admits; all where it does not say.
TypeSet types_of(const Json& schema) {
  if (!schema.is_object()) return kAllTypes;
  TypeSet out = 0;
  if (const Json* type = schema.find("type")) {
    if (type->is_string()) out = type_named(*type->string()).value_or(kAllTypes);
    for (const Json& one : *type) {
      out |= one.is_string() ? type_named(*one.string()).value_or(kAllTypes) : kAllTypes;
    }
    return out == 0 ? kAllTypes : out;
  }
  return kAllTypes;
}

/// The values of enum or const, or nothing.
std::optional<std::vector<Json>> constants(const Json& schema) {
  if (const Json* one = schema.find("const")) return std::vector<Json>{*one};
  const Json* some = schema.find("enum");
  if (some == nullptr || !some->is_array()) return std::nullopt;
  return std::vector<Json>(some->begin(), some->end());
}

/// Whether validators take both for one value: 1 and 1.0 are.
bool same_value(const Json& a, const Json& b) {
  if (a.is_number() && b.is_number()) return a.number() == b.number();
  if (a.kind() != b.kind() || a.size() != b.size()) return false;
  if (a.is_array()) {
    return std::equal(a.begin(), a.end(), b.begin(), same_value);
  }
  if (!a.is_object()) return a == b;
  for (const auto& [name, value] : a.items()) {
    const Json* other = b.find(name);
    if (other == nullptr || !same_value(value, *other)) return false;
  }
  return true;
}

/// Lists too long to compare count as sharing one.
bool share_constant(const std::vector<Json>& a, const std::vector<Json>& b) {
  constexpr size_t kMaxPairs = 10'000;
  return a.size() * b.size() > kMaxPairs || std::any_of(a.begin(), a.end(), [&](const Json& value) {
           return std::any_of(b.begin(), b.end(),
                              [&](const Json& other) { return same_value(value, other); });
         });
}

bool requires_member(const Json& schema, std::string_view name) {
  const Json& required = schema["required"];
  return std::any_of(required.begin(), required.end(), [&](const Json& one) {
    return one.string() != nullptr && *one.string() == name;
  });
}

/// Whether a member that both require has constants in both, and none in common.
bool told_apart_by_member(const Json& a, const Json& b) {
  for (const auto& [name, of_a] : a["properties"].items()) {
    const Json* of_b = b["properties"].find(name);
    if (of_b == nullptr || !requires_member(a, name) || !requires_member(b, name)) continue;
    const auto in_a = constants(of_a), in_b = constants(*of_b);
    if (in_a && in_b && !share_constant(*in_a, *in_b)) return true;
  }
  return false;
}

}  // namespace

std::optional<TypeSet> type_named(std::string_view name) {
  for (size_t i = 0; i < std::size(kTypeNames); ++i) {
    if (kTypeNames[i] == name) return TypeSet{1} << i;
  }
  return std::nullopt;
}

bool has_type(const Json& value, TypeSet types) {
  switch (value.kind()) {
    case Json::Kind::kNull:
      return (types & kNull) != 0;
    case Json::Kind::kBoolean:
      return (types & kBoolean) != 0;
    case Json::Kind::kInteger:
      return (types & (kInteger | kNumber)) != 0;
    case Json::Kind::kReal:
      return (types & kNumber) != 0;
    case Json::Kind::kString:
      return (types & kString) != 0;
    case Json::Kind::kArray:
      return (types & kArray) != 0;
    case Json::Kind::kObject:
      return (types & kObject) != 0;
  }
  return false;
}

TypeSet types_of_keyword(std::string_view keyword) {
  for (const KeywordType& entry : kKeywords) {
    if (entry.keyword == keyword) return entry.types;
  }
  return 0;
}

bool is_annotation(std::string_view keyword) {
  return std::find(std::begin(kAnnotations), std::end(kAnnotations), keyword) !=
         std::end(kAnnotations);
}

std::string_view format_pattern(std::string_view format) {
  for (const Format& entry : kFormats) {
    if (entry.name == format) return entry.pattern;
  }
  return {};
}

bool are_disjoint(const Json& a, const Json& b) {
  TypeSet in_a = types_of(a), in_b = types_of(b);
  if ((in_a & kNumber) != 0) in_a |= kInteger;
  if ((in_b & kNumber) != 0) in_b |= kInteger;
  if (a.is_object() && b.is_object()) {
    const auto of_a = constants(a), of_b = constants(b);
    if (of_a && of_b && !share_constant(*of_a, *of_b)) return true;
    const bool objects = types_of(a) == kObject && types_of(b) == kObject;
    if (objects && told_apart_by_member(a, b)) return true;
  }
  return (in_a & in_b) == 0;
}

}  // namespace chimera::constraint
