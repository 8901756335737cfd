#include "base/json/json.h"

#include <gtest/gtest.h>

#include <limits>

namespace chimera {
namespace {

TEST(Json, IsBuiltFromWhatProgramsHold) {
  const std::vector<int32_t> ids{1, 2};
  const Json made = {{"text", "x"},
                     {"flag", true},
                     {"count", size_t{3}},
                     {"share", 0.5f},
                     {"ids", ids},
                     {"bias", std::map<std::string, double>{{"legal", 0.5}}},
                     {"none", nullptr},
                     {"inner", {{"epoch", 7}}},
                     {"list", Json::array({1, "two"})}};
  EXPECT_EQ(made["text"], "x");
  EXPECT_EQ(made["flag"].boolean(), true);
  EXPECT_EQ(made["count"].integer(), 3);
  EXPECT_EQ(made["share"].number(), 0.5);
  EXPECT_EQ(made["ids"], Json::array({1, 2}));
  EXPECT_EQ(made["bias"]["legal"], 0.5);
  EXPECT_TRUE(made.contains("none") && made["none"].is_null());
  EXPECT_EQ(made["inner"]["epoch"].integer(), 7);
  EXPECT_EQ(made["list"][1], "two");
}

TEST(Json, TextIsNeverTakenForABoolean) {
  EXPECT_TRUE(Json("x").is_string());
  EXPECT_TRUE(Json(std::string_view("x")).is_string());
  EXPECT_TRUE(Json(true).is_boolean());
  EXPECT_TRUE(Json(1).is_integer());
  EXPECT_TRUE(Json(nullptr).is_null());
}

TEST(Json, WrongKindsAndMissingPlacesGiveNothing) {
  const Json text = "x";
  EXPECT_EQ(text.integer(), std::nullopt);
  EXPECT_EQ(text.natural(), std::nullopt);
  EXPECT_EQ(text.number(), std::nullopt);
  EXPECT_EQ(text.boolean(), std::nullopt);
  EXPECT_EQ(text.size(), 0u);
  EXPECT_EQ(text.find("a"), nullptr);
  EXPECT_TRUE(text["a"]["b"][3].is_null());
  EXPECT_TRUE(text.items().empty());
  EXPECT_EQ(text.begin(), text.end());
  EXPECT_EQ(Json(1).string(), nullptr);
  EXPECT_TRUE(Json::array({1})[1].is_null());
  EXPECT_TRUE(Json::array({1})["0"].is_null());
}

TEST(Json, IntegersKeepTheirDigits) {
  constexpr auto kMost = std::numeric_limits<uint64_t>::max();
  EXPECT_EQ(Json(kMost).natural(), kMost);
  EXPECT_EQ(Json(kMost).integer(), std::nullopt);
  EXPECT_EQ(Json(kMost).big_integer(), nullptr);
  EXPECT_EQ(Json(-1).natural(), std::nullopt);
  EXPECT_EQ(Json(5u), Json(5));
  EXPECT_EQ(Json(std::numeric_limits<int64_t>::min()).integer(),
            std::numeric_limits<int64_t>::min());

  const Json big = Json::big_integer("-36893488147419103232");
  ASSERT_NE(big.big_integer(), nullptr);
  EXPECT_EQ(*big.big_integer(), "-36893488147419103232");
  EXPECT_TRUE(big.is_integer() && big.is_number());
  EXPECT_EQ(big.integer(), std::nullopt);
  EXPECT_EQ(big.number(), -36893488147419103232.0);
}

TEST(Json, AWholeFloatIsNoInteger) {
  EXPECT_FALSE(Json(64.0).is_integer());
  EXPECT_EQ(Json(64.0).integer(), std::nullopt);
  EXPECT_EQ(Json(64).number(), 64.0);
}

TEST(Json, EqualityIsThatOfValues) {
  EXPECT_EQ(Json(8), Json(8.0));
  EXPECT_NE(Json(8), Json("8"));
  EXPECT_NE(Json(0), Json(false));
  EXPECT_NE(Json(), Json(0));
  EXPECT_NE(Json(-1), Json(std::numeric_limits<uint64_t>::max()));
  EXPECT_EQ((Json{{"a", 1}, {"b", 2}}), (Json{{"b", 2}, {"a", 1}}));
  EXPECT_NE((Json{{"a", 1}, {"b", 2}}), (Json{{"a", 1}, {"c", 2}}));
  EXPECT_NE(Json::array({1, 2}), Json::array({2, 1}));
  EXPECT_NE(Json::array(), Json::object());
  Json many, turned;
  for (int i = 0; i < 100; ++i) many[std::to_string(i)] = i;
  for (int i = 99; i >= 0; --i) turned[std::to_string(i)] = i;
  EXPECT_EQ(many, turned);
  turned["50"] = 51;
  EXPECT_NE(many, turned);
}

TEST(Json, ObjectsKeepTheOrderOfTheirMembers) {
  Json object;
  object["z"] = 1;
  object["a"]["inner"] = true;
  object["z"] = 2;
  std::string keys;
  for (const auto& [key, value] : object.items()) keys += key;
  EXPECT_EQ(keys, "za");
  EXPECT_EQ(object["z"], 2);
  EXPECT_TRUE(object.erase("z"));
  EXPECT_FALSE(object.erase("z"));
  EXPECT_EQ(object.size(), 1u);
}

TEST(Json, MembersAreReadWithAFallback) {
  const Json body = {{"name", "legal"}, {"epoch", 300}, {"share", 1}, {"on", true}, {"low", -1}};
  EXPECT_EQ(body.value("name", ""), "legal");
  EXPECT_EQ(body.value("absent", "none"), "none");
  EXPECT_EQ(body.value("epoch", uint64_t{0}), 300u);
  EXPECT_EQ(body.value("epoch", uint8_t{9}), 9) << "300 does not fit";
  EXPECT_EQ(body.value("low", uint64_t{9}), 9u);
  EXPECT_EQ(body.value("low", 0), -1);
  EXPECT_EQ(body.value("share", 0.0), 1.0);
  EXPECT_EQ(body.value("on", false), true);
  EXPECT_EQ(body.value("name", 5), 5) << "of another kind";
}

TEST(Json, CopiesAreIndependentAndMovesAreNot) {
  Json list = Json::array({Json{{"a", 1}}});
  const Json copy = list;
  list.begin()->operator[]("a") = 2;
  EXPECT_EQ(copy[0]["a"], 1);
  EXPECT_EQ(list[0]["a"], 2);
  const Json moved = std::move(list);
  EXPECT_EQ(moved[0]["a"], 2);
}

}  // namespace
}  // namespace chimera
