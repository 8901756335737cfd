// Spellings of enums: one table per enum, used by everybody who reads or writes its values.
//
//   enum class Fruit : uint8_t { kApple, kPear };
//   inline constexpr auto kFruitNames = enum_names<Fruit>("apple", "pear");
//
//   kFruitNames.name(Fruit::kPear)   "pear"
//   kFruitNames.find("plum")         nullopt
//   kFruitNames.choices()            "apple or pear"
//
// The table must have exactly one spelling per enumerator, in their order; an enumerator without
// one does not compile. What is done for each value, rather than how it is spelled, is decided by a
// `switch` without `default`, so that -Wswitch tells every place that a new value concerns.
//
// Thread safety: constants.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace chimera {

namespace enum_names_detail {

/// Whether `value` is an enumerator: compilers write other values as casts, "(Fruit)2".
template <class E, E value>
constexpr bool is_enumerator() {
  constexpr std::string_view kText = __PRETTY_FUNCTION__;
  constexpr std::string_view kBefore = "value = ";
  return kText[kText.find(kBefore) + kBefore.size()] != '(';
}

}  // namespace enum_names_detail

/// The spellings of E, whose N enumerators have the values 0 to N - 1.
template <class E, size_t N>
class EnumNames {
  static_assert(std::is_enum_v<E>);
  static_assert(N > 0 && enum_names_detail::is_enumerator<E, static_cast<E>(N - 1)>(),
                "more spellings than enumerators");
  static_assert(!enum_names_detail::is_enumerator<E, static_cast<E>(N)>(),
                "an enumerator has no spelling");

 public:
  constexpr explicit EnumNames(std::array<std::string_view, N> names) : names_(names) {}

  constexpr std::string_view name(E value) const { return names_[static_cast<size_t>(value)]; }
  std::string text(E value) const { return std::string(name(value)); }

  constexpr std::optional<E> find(std::string_view name) const {
    for (size_t i = 0; i < N; ++i) {
      if (names_[i] == name) return static_cast<E>(i);
    }
    return std::nullopt;
  }

  /// All spellings, in the order of the enumerators.
  constexpr const std::array<std::string_view, N>& all() const { return names_; }

  /// "a", "a or b", "a, b or c": what a message expects.
  std::string choices() const {
    std::string out;
    for (size_t i = 0; i < N; ++i) {
      if (i > 0) out += i + 1 == N ? " or " : ", ";
      out += names_[i];
    }
    return out;
  }

 private:
  std::array<std::string_view, N> names_;
};

template <class E, class... Names>
constexpr EnumNames<E, sizeof...(Names)> enum_names(const Names&... names) {
  return EnumNames<E, sizeof...(Names)>({std::string_view(names)...});
}

}  // namespace chimera
