// The reader of fields: the same over JSON and YAML, every problem at once, defaults left alone.
#include "base/fields/reader.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/json/field_value.h"
#include "base/json/reader.h"
#include "base/suggest.h"
#include "base/yaml/field_value.h"

namespace chimera {
namespace {

class PlainWording final : public Wording {
 public:
  Problem mismatch(const std::string& path, const std::string& found,
                   std::string_view expected) const override {
    return {fmt::format("{}: {} (expected {})", path, found, expected)};
  }
  Problem missing(const std::string& path, std::string_view key,
                  std::string_view expected) const override {
    return {fmt::format("{}: missing (expected {})", path_of(path, key), expected)};
  }
  Problem unknown(const std::string& path, std::string_view key,
                  std::span<const std::string_view> known) const override {
    return {.text = fmt::format("{}: unknown ({})", path_of(path, key), nearest(key, known)),
            .hint = fmt::format("{}", fmt::join(known, " "))};
  }
};
const PlainWording kWording;

enum class Fruit : uint8_t { kApple, kPear };
constexpr auto kFruits = enum_names<Fruit>("apple", "pear");

struct Basket {
  int64_t count = 7;
  double weight = 0.5;
  bool fresh = true;
  std::string label = "none";
  Fruit fruit = Fruit::kPear;
  std::vector<int64_t> sizes;
  friend bool operator==(const Basket&, const Basket&) = default;
};

void read(const FieldValue& value, Problems& problems, Basket& out) {
  FieldReader fields(value, "basket", kWording, problems);
  fields.integer({"count", 1, 9}, out.count, FieldReader::kRequired);
  fields.number({"weight", 0.0, 2.0, /*min_open=*/true}, out.weight);
  fields.boolean("fresh", out.fresh);
  fields.text({"label", 1, 4}, out.label, FieldReader::kOptional, FieldReader::kNoControls);
  fields.choice("fruit", kFruits, out.fruit);
  if (const auto list = fields.list("sizes", "a list of sizes")) {
    for (size_t i = 0; i < list->size(); ++i) {
      int64_t size = 0;
      if (fields.read((*list)[i], fmt::format("sizes[{}]", i), IntRange{"sizes", 0, 5}, size)) {
        out.sizes.push_back(size);
      }
    }
  }
  fields.finish();
}

/// `text` is both YAML in its flow style and JSON.
struct Reading {
  Basket basket;
  Status status;
};
Reading as_json(const std::string& text) {
  Reading out;
  Problems problems;
  const Result<Json> json = parse_json(text);
  EXPECT_TRUE(json.ok()) << text;
  read(field_value(*json), problems, out.basket);
  out.status = problems.status();
  return out;
}
Reading as_yaml(const std::string& text) {
  Reading out;
  YamlProblems problems("f");
  const Result<YamlNode> tree = parse_yaml(text, "f", problems);
  EXPECT_TRUE(tree.ok()) << text;
  read(field_value(*tree), problems, out.basket);
  out.status = problems.status();
  return out;
}

/// Without the places, which only YAML has.
std::string without_places(const std::string& message) {
  std::string out;
  for (size_t begin = 0; begin < message.size();) {
    const size_t end = std::min(message.find('\n', begin), message.size());
    const std::string line = message.substr(begin, end - begin);
    out += line.substr(line.find(' ') + 1) + '\n';
    begin = end + 1;
  }
  return out;
}

TEST(FieldReader, ReadsTheSameFromJsonAndYaml) {
  const std::string text =
      R"({"count": 3, "weight": 1.5, "fresh": false, "label": "ab", "fruit": "apple", "sizes": [0, 5]})";
  const Basket expected{3, 1.5, false, "ab", Fruit::kApple, {0, 5}};
  for (const Reading& reading : {as_json(text), as_yaml(text)}) {
    EXPECT_TRUE(reading.status.ok()) << reading.status.message();
    EXPECT_EQ(reading.basket, expected);
  }
}

TEST(FieldReader, TellsAllProblemsAtOnceInBothAndLeavesDefaults) {
  const std::string text =
      R"({"count": 10, "weight": 0, "fresh": 1, "label": "abcde", "fruit": "plum", "sizes": [6, 1, "x"], "colour": 1, "lable": 2})";
  const std::string expected =
      "basket.count: 10 (expected an integer from 1 to 9)\n"
      "basket.weight: 0 (expected a number above 0 and at most 2)\n"
      "basket.fresh: 1 (expected true or false)\n"
      "basket.label: \"abcde\" (expected a string of 1 to 4 bytes)\n"
      "basket.fruit: \"plum\" (expected apple or pear)\n"
      "basket.sizes[0]: 6 (expected an integer from 0 to 5)\n"
      "basket.sizes[2]: \"x\" (expected an integer from 0 to 5)\n"
      "basket.colour: unknown ()\n"
      "basket.lable: unknown (label)\n";
  Basket left;
  left.sizes = {1};
  const Reading json = as_json(text), yaml = as_yaml(text);
  EXPECT_EQ(json.status.message() + "\n", expected);
  EXPECT_EQ(without_places(yaml.status.message()), expected);
  EXPECT_EQ(json.basket, left);
  EXPECT_EQ(yaml.basket, left);
}

TEST(FieldReader, YamlSaysWhere) {
  const Reading reading = as_yaml("fruit: plum\ncount: x\nlable: a\n");
  EXPECT_EQ(reading.status.message(),
            "f:1:8: basket.fruit: plum (expected apple or pear)\n"
            "f:2:8: basket.count: x (expected an integer from 1 to 9)\n"
            "f:3:1: basket.lable: unknown (label)");
}

TEST(FieldReader, WhatIsMissingIsNamedButNotOfWhatIsNoMap) {
  EXPECT_EQ(as_json("{}").status.message(),
            "basket.count: missing (expected an integer from 1 to 9)");
  EXPECT_EQ(as_json("[1, 2]").status.message(), "basket: an array of 2 (expected a map)");
  EXPECT_EQ(as_yaml("[1, 2]").status.message(), "f:1:1: basket: a list (expected a map)");
}

TEST(FieldReader, IntegersOfYamlAreDigits) {
  for (const char* good : {"3", "+3", "03"}) {
    EXPECT_EQ(as_yaml(fmt::format("count: {}", good)).basket.count, 3) << good;
  }
  for (const char* bad : {"0x3", "3.0", "\"3\"", "3_0", "", "three", "[3]", "{a: 3}"}) {
    EXPECT_FALSE(as_yaml(fmt::format("count: {}", bad)).status.ok()) << bad;
  }
}

TEST(FieldReader, ControlCharactersAreRefusedWhereTheyAreNotAllowed) {
  EXPECT_EQ(as_json(R"({"count": 1, "label": "a\u0007"})").status.message(),
            "basket.label: \"a\\x07\" (expected no control characters)");
}

TEST(FieldReader, ManyProblemsAreCounted) {
  std::string text = R"({"count": 1)";
  for (size_t i = 0; i < Problems::kMost + 3; ++i) text += fmt::format(", \"k{}\": 1", i);
  const std::string message = as_json(text + "}").status.message();
  EXPECT_NE(message.find("\nand 3 more problems"), std::string::npos) << message;
}

TEST(Problems, HaveCodeAndHintOfTheFirstInTheDocument) {
  Problems problems("f");
  problems.add({2, 1}, {"b", "second", Code::kUnimplemented});
  problems.add({1, 9}, {"a", "first", Code::kDataCorrupt});
  problems.add({1, 9}, {"a", "first", Code::kDataCorrupt});
  EXPECT_EQ(problems.status().message(), "f:1:9: a\nf:2:1: b");
  EXPECT_EQ(problems.status().code(), Code::kDataCorrupt);
  EXPECT_EQ(problems.status().hint(), "first");
  EXPECT_EQ(problems.status("all").hint(), "all");
}

}  // namespace
}  // namespace chimera
