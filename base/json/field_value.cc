#include "base/json/field_value.h"

#include "base/json/writer.h"
#include "base/quote.h"

namespace chimera {

const JsonFieldFormat& JsonFieldFormat::strict() {
  static const JsonFieldFormat kStrict;
  return kStrict;
}

FieldFormat::Kind JsonFieldFormat::kind(const void* node) const {
  switch (json(node).kind()) {
    case Json::Kind::kNull:
      return Kind::kNull;
    case Json::Kind::kBoolean:
    case Json::Kind::kInteger:
    case Json::Kind::kReal:
    case Json::Kind::kString:
      return Kind::kScalar;
    case Json::Kind::kArray:
      return Kind::kList;
    case Json::Kind::kObject:
      return Kind::kMap;
  }
  return Kind::kNull;
}

std::string JsonFieldFormat::found(const void* node) const {
  const Json& value = json(node);
  if (value.is_string()) return quote(*value.string());
  if (value.is_array()) return "an array of " + std::to_string(value.size());
  if (value.is_object()) return "an object";
  return write_json(value);
}

std::string JsonFieldFormat::written(const void* node) const { return write_json(json(node)); }
bool JsonFieldFormat::is_integer(const void* node) const { return json(node).is_integer(); }
std::optional<int64_t> JsonFieldFormat::integer(const void* node) const {
  return json(node).integer();
}
std::optional<double> JsonFieldFormat::number(const void* node) const {
  return json(node).number();
}
std::optional<bool> JsonFieldFormat::boolean(const void* node) const {
  return json(node).boolean();
}
std::optional<std::string_view> JsonFieldFormat::text(const void* node) const {
  const std::string* text = json(node).string();
  if (text == nullptr) return std::nullopt;
  return *text;
}
size_t JsonFieldFormat::size(const void* node) const { return json(node).size(); }
const void* JsonFieldFormat::item(const void* node, size_t index) const {
  return &json(node).at(index);
}
FieldFormat::Entry JsonFieldFormat::entry(const void* node, size_t index) const {
  const Json::Member& member = json(node).items()[index];
  return {member.key, {}, &member.value};
}
const void* JsonFieldFormat::find(const void* node, std::string_view key) const {
  return json(node).find(key);
}

}  // namespace chimera
