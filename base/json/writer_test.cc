#include "base/json/writer.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>

#include "base/json/reader.h"

namespace chimera {
namespace {

TEST(JsonWriter, OneLineHasNoBlanks) {
  const Json value = {
      {"z", Json::array({1, true, nullptr})}, {"a", {{"b", "c"}}}, {"e", Json::array()}};
  EXPECT_EQ(write_json(value), R"({"z":[1,true,null],"a":{"b":"c"},"e":[]})");
}

TEST(JsonWriter, IndentedMembersStandOnLinesOfTheirOwn) {
  const Json value = {
      {"a", Json::array({1, 2})}, {"b", {{"c", Json::object()}}}, {"d", Json::array()}};
  EXPECT_EQ(write_json(value, {.indent = 2}),
            "{\n  \"a\": [\n    1,\n    2\n  ],\n  \"b\": {\n    \"c\": {}\n  },\n  \"d\": []\n}");
}

TEST(JsonWriter, NumbersReadBackAsTheyWere) {
  const std::pair<double, const char*> cases[] = {
      {0.0, "0.0"},         {-0.0, "-0.0"},
      {1.0, "1.0"},         {0.1, "0.1"},
      {10000.0, "10000.0"}, {1e-05, "1e-05"},
      {0.0001, "0.0001"},   {123456789012345.0, "123456789012345.0"},
      {1e15, "1e+15"},      {1.5e300, "1.5e+300"},
      {5e-324, "5e-324"},   {0.20000000298023224, "0.20000000298023224"}};
  for (const auto& [value, text] : cases) EXPECT_EQ(write_json(value), text);

  std::mt19937_64 random(1);
  for (int i = 0; i < 20'000; ++i) {
    const auto value = std::bit_cast<double>(random());
    if (!std::isfinite(value)) continue;
    const Result<Json> back = parse_json(write_json(value));
    ASSERT_TRUE(back.ok());
    EXPECT_EQ(back->kind(), Json::Kind::kReal);
    EXPECT_EQ(std::bit_cast<uint64_t>(*back->number()), std::bit_cast<uint64_t>(value)) << value;
  }
}

TEST(JsonWriter, NumbersThatAreNotFiniteAreNull) {
  EXPECT_EQ(write_json(std::numeric_limits<double>::quiet_NaN()), "null");
  EXPECT_EQ(write_json(-std::numeric_limits<double>::infinity()), "null");
}

TEST(JsonWriter, IntegersAreWrittenWhole) {
  EXPECT_EQ(write_json(std::numeric_limits<uint64_t>::max()), "18446744073709551615");
  EXPECT_EQ(write_json(std::numeric_limits<int64_t>::min()), "-9223372036854775808");
  EXPECT_EQ(write_json(Json::big_integer("18446744073709551616")), "18446744073709551616");
}

TEST(JsonWriter, TextIsEscapedWhereItMustBe) {
  EXPECT_EQ(json_string("a\"b\\c\n\r\t\b\f\x01\x1f/"), R"("a\"b\\c\n\r\t\b\f\u0001\u001f/")");
  EXPECT_EQ(json_string("\x7f\xC3\xA4\xF0\x9F\x98\x80"), "\"\x7f\xC3\xA4\xF0\x9F\x98\x80\"");
  EXPECT_EQ(json_string(""), "\"\"");
}

TEST(JsonWriter, WhatIsNotUtf8IsReplacedPartByPart) {
  EXPECT_EQ(json_string("a\xFF\xE2\x82z"), "\"a\uFFFD\uFFFDz\"");
  EXPECT_EQ(json_string("\xC0\xAF"), "\"\uFFFD\uFFFD\"");
  EXPECT_EQ(json_string("\xE2\x82"), "\"\uFFFD\"");
  EXPECT_EQ(write_json(Json{{"k\xFF", 1}}), "{\"k\uFFFD\":1}");
}

TEST(JsonWriter, AsciiStyleEscapesTheRest) {
  EXPECT_EQ(write_json("\x7f\xC3\xA4\xF0\x9F\x98\x80\xFF", {.ascii = true}),
            R"("\u007f\u00e4\ud83d\ude00\ufffd")");
}

}  // namespace
}  // namespace chimera
