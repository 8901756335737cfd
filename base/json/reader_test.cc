#include "base/json/reader.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/json/writer.h"

namespace chimera {
namespace {

using ::testing::HasSubstr;

/// The text as it is read, or the complaint.
std::string read(std::string_view text, const JsonLimits& limits = {}) {
  const Result<Json> value = parse_json(text, limits);
  return value.ok() ? write_json(*value) : value.status().message();
}

TEST(JsonReader, ReadsEveryKindOfValue) {
  EXPECT_EQ(read(" {\"b\": [1, -2.5, \"x\", true, false, null, {}, []], \"a\": 1e2}\n"),
            R"({"b":[1,-2.5,"x",true,false,null,{},[]],"a":100.0})");
  EXPECT_EQ(read("\"lone\""), "\"lone\"");
  EXPECT_EQ(read("7"), "7");
}

TEST(JsonReader, RefusesWhatIsNoJsonAndSaysWhere) {
  const std::pair<std::string_view, const char*> cases[] = {
      {"", "the text ends early at line 1, column 1 (byte 0)"},
      {"  ", "ends early"},
      {"[1,\n 2", "the text ends early at line 2, column 3 (byte 6)"},
      {"{\"a\":", "ends early"},
      {"\"abc", "ends early"},
      {"tru", "ends early"},
      {"[1 2]", "syntax error at line 1, column 5 (byte 4)"},
      {"[1,]", "syntax error"},
      {"{\"a\":1,}", "syntax error"},
      {"{a:1}", "syntax error at line 1, column 2 (byte 1)"},
      {"{1:1}", "syntax error"},
      {"['a']", "syntax error"},
      {"// x\n1", "syntax error"},
      {"NaN", "syntax error"},
      {"-Infinity", "syntax error"},
      {"01", "syntax error"},
      {"+1", "syntax error"},
      {".5", "syntax error"},
      {"1.", "early"},
      {"\"\t\"", "syntax error"},
      {"\"\\x\"", "syntax error"},
      {"[1] [2]", "syntax error at line 1, column 5 (byte 4)"},
      {"{}}", "syntax error at line 1, column 3 (byte 2)"},
  };
  for (const auto& [text, complaint] : cases) EXPECT_THAT(read(text), HasSubstr(complaint)) << text;
}

TEST(JsonReader, NothingHidesBehindANulOrAByteOrderMark) {
  EXPECT_EQ(read(std::string_view("{}\0{", 4)), "JSON: NUL byte at line 1, column 3 (byte 2)");
  EXPECT_EQ(read(std::string_view("\"a\0b\"", 5)), "JSON: NUL byte at line 1, column 3 (byte 2)");
  EXPECT_EQ(read("\xEF\xBB\xBF{}"), "JSON: byte order mark at line 1, column 1 (byte 0)");
}

TEST(JsonReader, TextIsUtf8) {
  EXPECT_EQ(read("\"\xF0\x9F\x98\x80\""), "\"\xF0\x9F\x98\x80\"");
  EXPECT_EQ(read("[\"\xFF\"]"), "JSON: invalid UTF-8 at line 1, column 3 (byte 2)");
  for (const char* bad :
       {"\"\xC0\xAF\"", "\"\xED\xA0\x80\"", "\"\xF4\x90\x80\x80\"", "\"\xE2\x82\""}) {
    EXPECT_THAT(read(bad), HasSubstr("invalid UTF-8")) << bad;
  }
}

TEST(JsonReader, EscapedSurrogatesComeInPairs) {
  EXPECT_EQ(read(R"("\ud83d\ude00")"), "\"\xF0\x9F\x98\x80\"");
  for (const char* bad : {R"("\ud83d")", R"("\ude00")", R"("\ud83dx")", R"("\ud83d\u0041")"}) {
    EXPECT_THAT(read(bad), HasSubstr("syntax error")) << bad;
  }
}

TEST(JsonReader, IntegersKeepAllTheirDigits) {
  for (const char* number : {"0", "-1", "9223372036854775807", "9223372036854775808",
                             "18446744073709551615", "18446744073709551616", "-9223372036854775808",
                             "-9223372036854775809", "123456789012345678901234567890"}) {
    EXPECT_EQ(read(number), number);
  }
  EXPECT_EQ(parse_json("18446744073709551615")->natural(), UINT64_MAX);
  ASSERT_TRUE(parse_json("18446744073709551616")->big_integer() != nullptr);
}

TEST(JsonReader, NumbersOutsideADoubleAreRefused) {
  EXPECT_EQ(read("[1e400]"), "JSON: number out of range at line 1, column 7 (byte 6)");
  EXPECT_THAT(read(std::string(400, '9')), HasSubstr("number out of range"));
  EXPECT_EQ(read("1e-400"), "0.0");
}

TEST(JsonReader, NoKeyStandsTwice) {
  EXPECT_EQ(read(R"({"a":1,"b":{"a":1},"a":2})"),
            "JSON: duplicate key \"a\" at line 1, column 22 (byte 21)");
  EXPECT_THAT(read("{\"a\":1,\"\\u0061\":2}"), HasSubstr("duplicate key \"a\""));
}

std::string many_keys(int count, const std::string& last) {
  std::string text = "{";
  for (int i = 0; i < count; ++i) text += fmt::format("\"k{}\":{},", i, i);
  return text + last + "}";
}

TEST(JsonReader, NoKeyStandsTwiceAmongManyEither) {
  for (const int count : {30, 31, 32, 33, 1000}) {
    EXPECT_THAT(read(many_keys(count, R"("k7":0)")), HasSubstr("duplicate key \"k7\"")) << count;
    EXPECT_TRUE(parse_json(many_keys(count, R"("new":0)")).ok()) << count;
  }
}

TEST(JsonReader, WhereReadersTakeTheLastOfEqualKeysSoCanThisOne) {
  const JsonLimits lenient{.duplicates = DuplicateKeys::kLastCounts};
  EXPECT_EQ(read(R"({"a":1,"b":2,"a":{"c":3}})", lenient), R"({"a":{"c":3},"b":2})");
  for (const int count : {30, 31, 32, 33, 1000}) {
    const Result<Json> value = parse_json(many_keys(count, R"("k7":"x","k7":"y","k3":0)"), lenient);
    ASSERT_TRUE(value.ok());
    EXPECT_EQ(value->size(), static_cast<size_t>(count));
    EXPECT_EQ((*value)["k7"], "y");
    EXPECT_EQ((*value)["k3"], 0);
    EXPECT_EQ((*value)["k8"], 8);
    EXPECT_EQ(value->items()[7].key, "k7") << "its first place";
  }
}

TEST(JsonReader, DepthIsBounded) {
  const auto nested = [](size_t depth) {
    return std::string(depth, '[') + std::string(depth, ']');
  };
  EXPECT_TRUE(parse_json(nested(8), {.max_depth = 8}).ok());
  EXPECT_EQ(read(nested(9), {.max_depth = 8}),
            "JSON: nested deeper than 8 levels at line 1, column 9 (byte 8)");
  EXPECT_THAT(read(std::string(1 << 20, '[')), HasSubstr("nested deeper than 64 levels"));
  EXPECT_THAT(read("{\"a\":{\"a\":1}}", {.max_depth = 1}), HasSubstr("nested deeper than 1"));
}

TEST(JsonReader, NumberOfValuesAndBytesIsBounded) {
  EXPECT_TRUE(parse_json("[1,2,3]", {.max_values = 4}).ok());
  EXPECT_EQ(read("[1,2,3,4]", {.max_values = 4}),
            "JSON: more than 4 values at line 1, column 9 (byte 8)");
  EXPECT_THAT(read("[[],[],[],{}]", {.max_values = 4}), HasSubstr("more than 4 values"));
  EXPECT_EQ(read("[1, 2]", {.max_bytes = 5}), "JSON of 6 bytes; the limit is 5");
}

TEST(JsonReader, AComplaintShowsNothingOfTheTextButADuplicateKey) {
  EXPECT_EQ(read("[\"secret\", secret]").find("secret"), std::string::npos);
  EXPECT_EQ(read("{\"\x01\":1,\"\\u0001\":2}").find('\x01'), std::string::npos);
}

/// Writes down what it is told; stops at the string "stop".
class Listener final : public JsonEvents {
 public:
  bool scalar(Json value) override {
    log += write_json(value) + " ";
    if (value != "stop") return true;
    problem_ = "asked to stop";
    return false;
  }
  bool key(std::string name) override {
    log += name + "= ";
    return true;
  }
  bool open_object() override {
    log += "{ ";
    return true;
  }
  bool open_array() override {
    log += "[ ";
    return true;
  }
  bool close() override {
    log += "/ ";
    return true;
  }
  const std::string& problem() const override { return problem_; }

  std::string log;

 private:
  std::string problem_;
};

TEST(JsonReader, TellsAListenerWhatComesAndStopsWhenItDoes) {
  Listener listener;
  ASSERT_TRUE(read_json(R"({"a":[1,{}],"b":"x"})", {}, listener).ok());
  EXPECT_EQ(listener.log, R"({ a= [ 1 { / / b= "x" / )");

  Listener stopped;
  const Status status = read_json(R"(["go","stop","more"])", {}, stopped);
  EXPECT_EQ(status.code(), Code::kDataCorrupt);
  EXPECT_EQ(status.message(), "JSON: asked to stop at line 1, column 12 (byte 11)");
  EXPECT_EQ(stopped.log, "[ \"go\" \"stop\" ");
}

}  // namespace
}  // namespace chimera
