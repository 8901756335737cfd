// Json: one JSON value as a plain C++ value.
//
// Access never throws and is never undefined: the wrong kind gives a null pointer, an empty
// optional, an empty range or the null value. Objects keep their members in the order they were
// added; two objects are equal whatever their order. Integers keep all their digits.
//
// Text becomes a Json by base/json/reader.h, a Json becomes text by base/json/writer.h.
//
// Thread safety: values; distinct objects are independent, a const one may be shared.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace chimera {

template <class T>
concept Arithmetic = std::is_arithmetic_v<T>;
template <class T>
concept Integer = std::integral<T> && !std::same_as<T, bool>;

class Json {
 public:
  enum class Kind : uint8_t { kNull, kBoolean, kInteger, kReal, kString, kArray, kObject };

  struct Member;  // key and value of an object
  struct Field;   // the same in a braced list that makes an object
  // --- making values ---------------------------------------------------------------------------

  Json() = default;  // null
  Json(std::nullptr_t);
  template <std::same_as<bool> T>  // nothing else may turn into a boolean, least of all a pointer
  Json(T value);
  template <Integer T>
  Json(T value);
  template <std::floating_point T>
  Json(T value);
  Json(const char* text);
  Json(std::string_view text);
  Json(std::string text);
  /// An object: Json{{"name", name}, {"size", 3}}. Keys must differ. A list of values is
  /// Json::array({1, 2}).
  Json(std::initializer_list<Field> fields);
  template <class T>
  Json(const std::vector<T>& items);
  template <class T>
  Json(const std::map<std::string, T>& members);

  static Json array(std::initializer_list<Json> items = {});
  static Json object();
  /// An integer that 64 bits do not hold. REQUIRES: `digits` is a JSON integer.
  static Json big_integer(std::string digits);

  Json(const Json&);
  Json& operator=(const Json&);
  Json(Json&&) noexcept = default;
  Json& operator=(Json&&) noexcept = default;
  ~Json();

  // --- what it is ------------------------------------------------------------------------------

  Kind kind() const;
  /// "null", "boolean", "number", "string", "array" or "object": for messages.
  std::string_view kind_name() const;
  bool is_null() const { return kind() == Kind::kNull; }
  bool is_boolean() const { return kind() == Kind::kBoolean; }
  bool is_integer() const { return kind() == Kind::kInteger; }  // written without point or exponent
  bool is_number() const { return is_integer() || kind() == Kind::kReal; }
  bool is_string() const { return kind() == Kind::kString; }
  bool is_array() const { return kind() == Kind::kArray; }
  bool is_object() const { return kind() == Kind::kObject; }

  // --- scalars: nothing when it is of another kind or does not fit -------------------------------

  std::optional<bool> boolean() const;
  /// Of an integer; 64.0 is none.
  std::optional<int64_t> integer() const;
  std::optional<uint64_t> natural() const;
  /// The digits (with their sign) of an integer that neither int64_t nor uint64_t holds.
  const std::string* big_integer() const;
  /// Of any number, the nearest double.
  std::optional<double> number() const;
  const std::string* string() const;

  // --- containers --------------------------------------------------------------------------------

  /// Elements of an array, members of an object, else 0.
  size_t size() const;
  bool empty() const { return size() == 0; }

  /// Elements of an array; none for any other kind.
  const Json* begin() const;
  const Json* end() const { return begin() + element_count(); }
  Json* begin();
  Json* end() { return begin() + element_count(); }
  /// An element; null when there is none.
  const Json& at(size_t index) const;
  template <std::integral T>
  const Json& operator[](T index) const& {
    return at(static_cast<size_t>(index));
  }
  template <std::integral T>  // a literal 0 would else be a key to a Json that is not const
  const Json& operator[](T index) & {
    return at(static_cast<size_t>(index));
  }
  /// REQUIRES: an array, or null, which becomes one.
  void push_back(Json item);

  /// Members of an object, `for (const auto& [key, value] : json.items())`; none for other kinds.
  std::span<const Member> items() const;
  std::span<Member> items();
  /// A member, or nullptr. Takes time in proportion to the members before it.
  const Json* find(std::string_view key) const;
  Json* find(std::string_view key);
  bool contains(std::string_view key) const { return find(key) != nullptr; }
  /// A member; null when there is none, so that paths can be written out: done["usage"]["tokens"].
  const Json& operator[](std::string_view key) const&;
  /// A member, added as null when there is none. REQUIRES: an object, or null, which becomes one.
  Json& operator[](std::string_view key) &;
  /// Adds a member without looking for one of that name. REQUIRES: there is none; an object, or
  /// null, which becomes one.
  Json& append(std::string key, Json value);
  /// Every member of `other`, in the place of one of that name. REQUIRES: an object, or null, which
  /// becomes one.
  void update(const Json& other);
  /// Removes a member; whether there was one.
  bool erase(std::string_view key);

  const Json& operator[](const char* key) const& { return (*this)[std::string_view(key)]; }
  Json& operator[](const char* key) & { return (*this)[std::string_view(key)]; }

  /// What the member holds when it is there, of the fallback's kind and fits, else `fallback`.
  template <Arithmetic T>
  T value(std::string_view key, T fallback) const;
  std::string value(std::string_view key, std::string_view fallback) const;
  std::string value(std::string_view key, const char* fallback) const {
    return value(key, std::string_view(fallback));
  }

  /// Numbers are equal by value (8 and 8.0), objects whatever the order of their members.
  friend bool operator==(const Json& a, const Json& b);

 private:
  using Array = std::vector<Json>;
  using Object = std::vector<Member>;
  struct Big {
    std::string digits;
  };
  // uint64_t only for what int64_t does not hold, so that equal numbers are stored equally.
  using Value = std::variant<std::monostate, bool, int64_t, uint64_t, Big, double, std::string,
                             Array, Object>;

  void set_unsigned(uint64_t value);
  size_t element_count() const;
  Array& become_array();
  Object& become_object();

  Value value_;
};

struct Json::Member {
  std::string key;
  Json value;
};

// Here, where Member is complete: a compiler may look into the variant at once.
inline Json::Json(std::nullptr_t) {}
inline Json::Json(const char* text) : value_(std::string(text)) {}
inline Json::Json(std::string_view text) : value_(std::string(text)) {}
inline Json::Json(std::string text) : value_(std::move(text)) {}
template <std::same_as<bool> T>
Json::Json(T value) : value_(value) {}
template <Integer T>
Json::Json(T value) {
  if constexpr (std::unsigned_integral<T>) {
    set_unsigned(value);
  } else {
    value_ = static_cast<int64_t>(value);
  }
}
template <std::floating_point T>
Json::Json(T value) : value_(static_cast<double>(value)) {}
template <class T>
Json::Json(const std::vector<T>& items) {
  auto& array = value_.emplace<Array>();
  array.reserve(items.size());
  for (const T& item : items) array.emplace_back(item);
}

struct Json::Field {
  Field(std::string_view name, Json content) : key(name), value(std::move(content)) {}
  std::string_view key;
  mutable Json value;  // moved out of the list, whose elements are const
};

template <class T>
Json::Json(const std::map<std::string, T>& members) {
  auto& object = value_.emplace<Object>();
  object.reserve(members.size());
  for (const auto& [key, value] : members) object.push_back({key, Json(value)});
}

template <Arithmetic T>
T Json::value(std::string_view key, T fallback) const {
  const Json& found = (*this)[key];
  if constexpr (std::same_as<T, bool>) {
    return found.boolean().value_or(fallback);
  } else if constexpr (std::floating_point<T>) {
    return static_cast<T>(found.number().value_or(static_cast<double>(fallback)));
  } else if constexpr (std::unsigned_integral<T>) {
    const std::optional<uint64_t> number = found.natural();
    return number && std::in_range<T>(*number) ? static_cast<T>(*number) : fallback;
  } else {
    const std::optional<int64_t> number = found.integer();
    return number && std::in_range<T>(*number) ? static_cast<T>(*number) : fallback;
  }
}

}  // namespace chimera
