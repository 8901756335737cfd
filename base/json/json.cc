#include "base/json/json.h"

#include <algorithm>
#include <cassert>
#include <charconv>
#include <limits>

namespace chimera {
namespace {

const Json& null_json() {
  static const Json kNull;
  return kNull;
}

// Objects of up to this many members are compared member by member.
constexpr size_t kFewMembers = 16;

std::vector<const Json::Member*> by_key(std::span<const Json::Member> object) {
  std::vector<const Json::Member*> sorted;
  sorted.reserve(object.size());
  for (const Json::Member& member : object) sorted.push_back(&member);
  std::sort(sorted.begin(), sorted.end(),
            [](const auto* a, const auto* b) { return a->key < b->key; });
  return sorted;
}

bool same_members(const Json& a, const Json& b) {
  const std::span<const Json::Member> x = a.items();
  if (x.size() != b.size()) return false;
  if (x.size() <= kFewMembers) {
    return std::all_of(x.begin(), x.end(), [&](const Json::Member& member) {
      const Json* other = b.find(member.key);
      return other != nullptr && *other == member.value;
    });
  }
  const auto left = by_key(x), right = by_key(b.items());
  return std::equal(left.begin(), left.end(), right.begin(), [](const auto* p, const auto* q) {
    return p->key == q->key && p->value == q->value;
  });
}

bool same_number(const Json& a, const Json& b) {
  if (a.is_integer() && b.is_integer()) {
    const std::string *x = a.big_integer(), *y = b.big_integer();
    if (x != nullptr || y != nullptr) return x != nullptr && y != nullptr && *x == *y;
    return a.integer() == b.integer() && a.natural() == b.natural();
  }
  return a.number() == b.number();
}

}  // namespace

Json::Json(std::initializer_list<Field> fields) {
  Object& object = value_.emplace<Object>();
  object.reserve(fields.size());
  for (const Field& field : fields) {
    object.push_back({std::string(field.key), std::move(field.value)});
  }
}

Json::Json(const Json&) = default;
Json& Json::operator=(const Json&) = default;
Json::~Json() = default;

Json Json::array(std::initializer_list<Json> items) {
  Json out;
  out.value_.emplace<Array>(items);
  return out;
}

Json Json::object() {
  Json out;
  out.value_.emplace<Object>();
  return out;
}

Json Json::big_integer(std::string digits) {
  Json out;
  out.value_.emplace<Big>(Big{std::move(digits)});
  return out;
}

void Json::set_unsigned(uint64_t value) {
  if (value <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    value_ = static_cast<int64_t>(value);
  } else {
    value_ = value;
  }
}

Json::Kind Json::kind() const {
  // In the order of Value.
  static constexpr Kind kKinds[] = {Kind::kNull,    Kind::kBoolean, Kind::kInteger,
                                    Kind::kInteger, Kind::kInteger, Kind::kReal,
                                    Kind::kString,  Kind::kArray,   Kind::kObject};
  static_assert(std::size(kKinds) == std::variant_size_v<Value>);
  return kKinds[value_.index()];
}

std::string_view Json::kind_name() const {
  switch (kind()) {
    case Kind::kNull:
      return "null";
    case Kind::kBoolean:
      return "boolean";
    case Kind::kInteger:
    case Kind::kReal:
      return "number";
    case Kind::kString:
      return "string";
    case Kind::kArray:
      return "array";
    case Kind::kObject:
      return "object";
  }
  return "";
}

std::optional<bool> Json::boolean() const {
  const bool* flag = std::get_if<bool>(&value_);
  return flag == nullptr ? std::nullopt : std::optional(*flag);
}

std::optional<int64_t> Json::integer() const {
  const int64_t* number = std::get_if<int64_t>(&value_);
  return number == nullptr ? std::nullopt : std::optional(*number);
}

std::optional<uint64_t> Json::natural() const {
  if (const uint64_t* number = std::get_if<uint64_t>(&value_)) return *number;
  const int64_t* number = std::get_if<int64_t>(&value_);
  if (number == nullptr || *number < 0) return std::nullopt;
  return static_cast<uint64_t>(*number);
}

const std::string* Json::big_integer() const {
  const Big* big = std::get_if<Big>(&value_);
  return big == nullptr ? nullptr : &big->digits;
}

std::optional<double> Json::number() const {
  if (const double* real = std::get_if<double>(&value_)) return *real;
  if (const int64_t* number = std::get_if<int64_t>(&value_)) return static_cast<double>(*number);
  if (const uint64_t* number = std::get_if<uint64_t>(&value_)) return static_cast<double>(*number);
  const std::string* digits = big_integer();
  if (digits == nullptr) return std::nullopt;
  double nearest = 0.0;
  const auto [end, error] =
      std::from_chars(digits->data(), digits->data() + digits->size(), nearest);
  if (error == std::errc::result_out_of_range) {
    const double infinity = std::numeric_limits<double>::infinity();
    return digits->starts_with('-') ? -infinity : infinity;
  }
  return nearest;
}

const std::string* Json::string() const { return std::get_if<std::string>(&value_); }

size_t Json::size() const {
  if (const Array* array = std::get_if<Array>(&value_)) return array->size();
  return items().size();
}

size_t Json::element_count() const {
  const Array* array = std::get_if<Array>(&value_);
  return array == nullptr ? 0 : array->size();
}

const Json* Json::begin() const {
  const Array* array = std::get_if<Array>(&value_);
  return array == nullptr ? nullptr : array->data();
}

Json* Json::begin() {
  Array* array = std::get_if<Array>(&value_);
  return array == nullptr ? nullptr : array->data();
}

const Json& Json::at(size_t index) const {
  return index < element_count() ? begin()[index] : null_json();
}

Json::Array& Json::become_array() {
  assert(is_null() || is_array());
  Array* array = std::get_if<Array>(&value_);
  return array == nullptr ? value_.emplace<Array>() : *array;
}

void Json::push_back(Json item) { become_array().push_back(std::move(item)); }

std::span<const Json::Member> Json::items() const {
  const Object* object = std::get_if<Object>(&value_);
  if (object == nullptr) return {};
  return *object;
}

std::span<Json::Member> Json::items() {
  Object* object = std::get_if<Object>(&value_);
  if (object == nullptr) return {};
  return *object;
}

const Json* Json::find(std::string_view key) const {
  for (const Member& member : items()) {
    if (member.key == key) return &member.value;
  }
  return nullptr;
}

Json* Json::find(std::string_view key) { return const_cast<Json*>(std::as_const(*this).find(key)); }

const Json& Json::operator[](std::string_view key) const& {
  const Json* found = find(key);
  return found == nullptr ? null_json() : *found;
}

Json::Object& Json::become_object() {
  assert(is_null() || is_object());
  Object* object = std::get_if<Object>(&value_);
  return object == nullptr ? value_.emplace<Object>() : *object;
}

Json& Json::operator[](std::string_view key) & {
  Json* found = find(key);
  return found == nullptr ? append(std::string(key), Json()) : *found;
}

Json& Json::append(std::string key, Json value) {
  Object& object = become_object();
  object.push_back({std::move(key), std::move(value)});
  return object.back().value;
}

void Json::update(const Json& other) {
  for (const auto& [key, value] : other.items()) (*this)[key] = value;
}

bool Json::erase(std::string_view key) {
  Object* object = std::get_if<Object>(&value_);
  return object != nullptr &&
         std::erase_if(*object, [key](const Member& member) { return member.key == key; }) > 0;
}

std::string Json::value(std::string_view key, std::string_view fallback) const {
  const std::string* text = (*this)[key].string();
  return text == nullptr ? std::string(fallback) : *text;
}

bool operator==(const Json& a, const Json& b) {
  if (a.is_number() && b.is_number()) return same_number(a, b);
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Json::Kind::kBoolean:
      return a.boolean() == b.boolean();
    case Json::Kind::kString:
      return *a.string() == *b.string();
    case Json::Kind::kArray:
      return std::equal(a.begin(), a.end(), b.begin(), b.end());
    case Json::Kind::kObject:
      return same_members(a, b);
    default:
      return true;
  }
}

}  // namespace chimera
