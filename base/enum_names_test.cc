#include "base/enum_names.h"

#include <gtest/gtest.h>

#include <cstdint>

namespace chimera {
namespace {

enum class Fruit : uint8_t { kApple, kPear, kPlum };
constexpr auto kFruitNames = enum_names<Fruit>("apple", "pear", "plum");

enum class Only : uint8_t { kOne };
constexpr auto kOnlyNames = enum_names<Only>("one");

TEST(EnumNames, SpellEveryValueAndReadItBack) {
  static_assert(kFruitNames.name(Fruit::kPear) == "pear");
  static_assert(kFruitNames.find("plum") == Fruit::kPlum);
  EXPECT_EQ(kFruitNames.text(Fruit::kApple), "apple");
  for (const std::string_view name : kFruitNames.all()) {
    ASSERT_TRUE(kFruitNames.find(name));
    EXPECT_EQ(kFruitNames.name(*kFruitNames.find(name)), name);
  }
  EXPECT_EQ(kFruitNames.find("Plum"), std::nullopt);
  EXPECT_EQ(kFruitNames.find(""), std::nullopt);
}

TEST(EnumNames, ListWhatIsExpected) {
  EXPECT_EQ(kFruitNames.choices(), "apple, pear or plum");
  EXPECT_EQ(kOnlyNames.choices(), "one");
}

// What makes a forgotten spelling an error of the compiler.
TEST(EnumNames, KnowHowManyEnumeratorsThereAre) {
  using enum_names_detail::is_enumerator;
  static_assert(is_enumerator<Fruit, Fruit::kApple>());
  static_assert(is_enumerator<Fruit, static_cast<Fruit>(2)>());
  static_assert(!is_enumerator<Fruit, static_cast<Fruit>(3)>());
  static_assert(!is_enumerator<Only, static_cast<Only>(1)>());
}

}  // namespace
}  // namespace chimera
