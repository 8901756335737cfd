#include "text/constraint/constraint.h"

#include <map>
#include <random>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/json/testing.h"
#include "base/json/writer.h"
#include "text/constraint/cache.h"
#include "text/constraint/json_schema.h"
#include "text/constraint/pattern.h"

namespace chimera::constraint {
namespace {

using testing::HasSubstr;

std::shared_ptr<const Network> shared(Result<Network> network) {
  EXPECT_TRUE(network.ok()) << network.status().to_string();
  return network.ok() ? std::make_shared<const Network>(std::move(*network)) : nullptr;
}

Result<Network> regex(std::string_view pattern) {
  const auto branches = parse_pattern(pattern);
  if (!branches.ok()) return branches.status();
  NetworkBuilder builder;
  const NodeId start =
      PatternWriter(builder, Spelling::kPlain).write_whole(*branches, builder.end());
  const RuleId root = builder.rule("expression", start);
  return std::move(builder).finish(root, "regex");
}

Result<Network> schema(const std::string& text) { return schema_network(json_of(text), "schema"); }

bool fits(const std::shared_ptr<const Network>& network, std::string_view text) {
  Matcher matcher(network);
  StateId state = matcher.start();
  for (const char c : text) state = matcher.next(state, static_cast<uint8_t>(c));
  return matcher.accepts(state);
}

struct Language {
  std::string description;
  std::vector<std::string> in, out;
};

void expect(const Language& language, const std::shared_ptr<const Network>& network) {
  ASSERT_NE(network, nullptr) << language.description;
  for (const auto& text : language.in)
    EXPECT_TRUE(fits(network, text)) << language.description << " <- " << text;
  for (const auto& text : language.out)
    EXPECT_FALSE(fits(network, text)) << language.description << " <- " << text;
}

TEST(Regex, FitsTheWholeText) {
  const Language languages[] = {
      {"abc", {"abc"}, {"", "ab", "abcd", "xabc"}},
      {"^a|b$", {"a", "b"}, {"ab", ""}},
      {"", {""}, {"a"}},
      {"a*", {"", "a", "aaaa"}, {"b", "aab"}},
      {"(a|b)+c?", {"a", "abab", "bc"}, {"", "c", "abca"}},
      {"(?:ab){2,3}", {"abab", "ababab"}, {"ab", "abababab", "aba"}},
      {"x{3}", {"xxx"}, {"xx", "xxxx"}},
      {"x{2,}", {"xx", "xxxxxx"}, {"x"}},
      {"x{0,2}?y", {"y", "xy", "xxy"}, {"xxxy"}},
      {"(a*)*b", {"b", "aab"}, {"a"}},
      {"[a-cx]", {"a", "b", "x"}, {"d", "-", ""}},
      {"[^a-c]", {"d", "é", "\n"}, {"a", "b", "dd"}},
      {"[a\\]-]", {"a", "]", "-"}, {"\\"}},
      {"[^\\w]", {"-", " "}, {"a", "é"}},
      {"\\d\\D", {"1a", "7-"}, {"11", "1\xC3\xA9"}},
      {"\\w+\\s\\S", {"ab c", "_1\t-"}, {"ab  ", "é a"}},
      {".", {"a", "é", "\xF0\x9F\x98\x80"}, {"\n", "\xC3", "ab", "\xED\xA0\x80"}},
      {"[à-ÿ]{2}", {"éà"}, {"e", "é"}},
      {"\\x41\\u00e9\\u{1F600}", {"Aé\xF0\x9F\x98\x80"}, {"A"}},
      {"\\n\\.\\/\\t", {"\n./\t"}, {"n./t"}},
      {"(?<year>\\d{4})-(?P<month>\\d\\d)", {"2024-05"}, {"2024-5"}},
      {"[\\b]", {"\b"}, {"b"}},
  };
  for (const Language& language : languages) expect(language, shared(regex(language.description)));
}

TEST(Regex, WhatIsNotSupportedIsNamed) {
  const std::map<std::string, std::string> cases = {
      {"(?=a)", "looks around"},
      {"(?!a)", "looks around"},
      {"(?<!a)b", "looks around"},
      {"(?i)a", "sets flags"},
      {"a\\1", "\"\\1\""},
      {"\\bfoo", "\"\\b\""},
      {"\\p{L}", "\"\\p\""},
      {"a++", "possessive"},
      {"a**", "count of a count"},
      {"*a", "behind nothing"},
      {"(a", "not closed"},
      {"a)", "parenthesis"},
      {"[a", "not closed"},
      {"[z-a]", "ends do not fit"},
      {"[\\d-z]", "ends do not fit"},
      {"a{2,1}", "before its beginning"},
      {"a{1001}", "a count"},
      {"a{x}", "a count"},
      {"a^b", "in the middle"},
      {"a$b", "in the middle"},
      {"(a$)", "in the middle"},
      {"\\", "backslash at the end"},
      {"\\u12", "hexadecimal"},
      {"\\ud800", "hexadecimal"},
      {"[[:alpha:]]", "POSIX"},
      {"\xff", "not UTF-8"},
  };
  for (const auto& [pattern, problem] : cases) {
    const auto parsed = parse_pattern(pattern);
    ASSERT_FALSE(parsed.ok()) << pattern;
    EXPECT_EQ(parsed.status().code(), Code::kInvalidArgument);
    EXPECT_THAT(parsed.status().message(), HasSubstr(problem)) << pattern;
  }
  EXPECT_THAT(parse_pattern(std::string(100, '(')).status().message(), HasSubstr("deep"));
  EXPECT_THAT(parse_pattern(std::string(kMaxPatternBytes + 1, 'a')).status().message(),
              HasSubstr("bytes"));
}

TEST(Regex, SizeAndEmptinessAreRefused) {
  EXPECT_EQ(regex("((((a{100}){100}){100}){100})").status().code(), Code::kInvalidArgument);
  EXPECT_THAT(regex("[]").status().message(), HasSubstr("no text"));
  EXPECT_TRUE(regex("[]|a").ok());
}

// Bytes that a state treats alike are found together: each of them as if it came first.
TEST(Matcher, EveryByteGoesWhereItGoesAlone) {
  const auto network = shared(schema(R"({"type":"array","items":{"type":["string","number"]}})"));
  Matcher all(network);
  for (const std::string_view text : {"", "[", "[\"", "[\"\\", "[\"\xE2", "[-1.5"}) {
    for (int b = 0; b < 256; ++b) {
      const std::string longer = std::string(text) + static_cast<char>(b);
      StateId state = all.start();
      for (const char c : longer) state = all.next(state, static_cast<uint8_t>(c));
      Matcher alone(network);
      StateId other = alone.start();
      for (const char c : longer) other = alone.next(other, static_cast<uint8_t>(c));
      EXPECT_EQ(state == Matcher::kDead, other == Matcher::kDead) << text << " " << b;
      EXPECT_EQ(state, all.import(alone, other)) << text << " " << b;
    }
  }
}

TEST(JsonObject, IsAnyObjectAndNothingElse) {
  std::string deep = "{\"a\":", close = "}";
  for (int i = 0; i < 62; ++i) {
    deep += "[";
    close.insert(0, "]");
  }
  expect({"object",
          {"{}", "{ }", R"({"a":1})", R"({"a": [1, -2.5e+10, true, null, "x\u00e9\n\"é"], "": {}})",
           "{\n  \"a\": {\n    \"b\": []\n  }\n}", R"({"\ud83d\ude00":"\uD83D\uDE00"})",
           deep + "1" + close},
          {"",
           "[]",
           "1",
           "{",
           R"({"a"})",
           R"({"a":})",
           R"({"a":1,})",
           R"({a:1})",
           R"({"a":01})",
           R"({"a":1} )",
           R"({"a":"\x"})",
           R"({"a":"\ud83d"})",
           "{\"a\":\"\n\"}",
           R"({"a":.5})",
           R"({"a":1.})",
           R"({"a":+1})",
           R"({"a":tru})",
           "{\"a\":\"\xff\"}",
           R"({"a":1e})",
           R"({"a":  1})",
           deep + "[[1]]" + close}},
         shared(object_network("json_object")));
}

TEST(JsonSchema, FitsWhatTheSchemaSays) {
  const Language languages[] = {
      {R"({"type":"integer"})",
       {"0", "-7", "123456789012345678"},
       {"1.0", "", "01", "1234567890123456789", "\"1\""}},
      {R"({"type":"integer","minimum":-12,"maximum":105})",
       {"-12", "-9", "0", "7", "99", "105"},
       {"-13", "106", "-0", "-20", "200", "1000"}},
      {R"({"type":"integer","exclusiveMinimum":0,"exclusiveMaximum":10})", {"1", "9"}, {"0", "10"}},
      {R"({"type":"integer","minimum":0.5,"maximum":2.5})", {"1", "2"}, {"0", "3"}},
      {R"({"type":"integer","minimum":990})",
       {"990", "1000", "999999999999999999"},
       {"989", "-990"}},
      {R"({"type":"number"})", {"0", "-0.5", "1e9", "1.25E-03"}, {".5", "1.", "NaN", "1e100"}},
      {R"({"type":"number","minimum":0,"exclusiveMaximum":2})",
       {"0", "0.5", "1", "1.999999", "0.0"},
       {"2", "-0.5", "2.0", "1e0"}},
      {R"({"type":"number","exclusiveMinimum":-2,"maximum":3})",
       {"-1.5", "-0.25", "0", "3", "3.0", "2.75"},
       {"-2", "-2.5", "3.1", "-0.0", "4"}},
      {R"({"type":"number","exclusiveMinimum":5})", {"5.000001", "6", "5.5"}, {"5", "5.0", "4.9"}},
      {R"({"type":"string","minLength":2,"maxLength":3})",
       {R"("ab")", R"("éàü")", R"("\n\"")", R"("\ud83d\ude00a")"},
       {R"("a")", R"("abcd")", R"("")"}},
      {R"({"type":"string","minLength":1})", {R"("a")", R"("abcdef")"}, {R"("")"}},
      {R"({"type":"string","pattern":"^a.c$"})",
       {R"("abc")", R"("aéc")", R"("a\"c")"},
       {R"("abcd")", R"("ac")"}},
      {R"({"type":"string","pattern":"b"})", {R"("b")", R"("abc")"}, {R"("a")"}},
      {R"({"type":"string","format":"date"})",
       {R"("2024-02-28")", R"("1999-12-31")"},
       {R"("2024-02-30")", R"("2024-13-01")", R"("0000-01-01")"}},
      {R"({"enum":["a\"b",1,null,[1,2]]})", {R"("a\"b")", "1", "null", "[1,2]"}, {"2", "[1, 2]"}},
      {R"({"enum":["a",1,null],"type":"string"})", {R"("a")"}, {"1", "null"}},
      {R"({"const":{"x":true}})", {R"({"x":true})"}, {"{}"}},
      {R"({"type":["null","boolean"]})", {"null", "true"}, {"0"}},
      {R"({"type":"array","items":{"type":"integer"},"minItems":1,"maxItems":3})",
       {"[1]", "[1, 2,3]", "[\n 1\n]"},
       {"[]", "[1,2,3,4]", "[\"a\"]", "[1,]"}},
      {R"({"type":"array","items":false})", {"[]", "[ ]"}, {"[1]"}},
      {R"({"type":"array","prefixItems":[{"const":1},{"type":"string"}]})",
       {R"([1,"a"])"},
       {"[1]", R"([1,"a",2])", "[]"}},
      {R"({"type":"object","properties":{"a":{"const":1},"b":{"const":2},"c":{"const":3}},"required":["b"]})",
       {R"({"b":2})", R"({"a":1,"b":2})", R"({"a": 1, "b": 2, "c": 3})", R"({"b":2,"c":3})"},
       {"{}", R"({"a":1})", R"({"b":2,"a":1})", R"({"b":2,"b":2})", R"({"b":2,"d":4})",
        R"({"b":2,})"}},
      {R"({"type":"object","properties":{"ab":{"const":1}},"additionalProperties":{"const":2}})",
       {"{}", R"({"ab":1})", R"({"ab":1,"a":2})", R"({"a":2,"abc":2})", R"({"":2,"x":2})"},
       {R"({"ab":2})", R"({"a":2,"ab":1})", R"({"a":1})", R"({"a\u0062":2})"}},
      {R"({"type":"object","required":["x"]})", {R"({"x":[1]})"}, {"{}", R"({"y":1})"}},
      {R"({"properties":{}})", {"{}"}, {"1"}},
      {R"({"type":"object"})", {R"({"q":{"r":1}})"}, {"[]"}},
      {R"({"anyOf":[{"type":"integer"},{"const":"n"}]})", {"5", R"("n")"}, {"true"}},
      {R"({"oneOf":[{"type":"object","properties":{"k":{"const":"a"},"v":{"type":"integer"}},"required":["k"]},
                    {"type":"object","properties":{"k":{"const":"b"}},"required":["k"]}]})",
       {R"({"k":"a","v":1})", R"({"k":"b"})"},
       {R"({"k":"c"})", R"({"k":"b","v":1})"}},
      {R"({"oneOf":[{"const":1},{"enum":[2,"1"]},{"const":2.5}]})", {"1", "2", "2.5"}, {"3"}},
      {R"({"allOf":[{"type":"integer"}],"description":"d"})", {"1"}, {"\"a\""}},
      {R"({"$defs":{"tree":{"type":"object","properties":{"v":{"type":"integer"},"kids":{"type":"array","items":{"$ref":"#/$defs/tree"}}},"required":["v"]}},"$ref":"#/$defs/tree"})",
       {R"({"v":1})", R"({"v":1,"kids":[{"v":2},{"v":3,"kids":[]}]})"},
       {R"({"v":1,"kids":[{}]})"}},
      {R"({"type":"object","properties":{"a/b":{"$ref":"#/properties/c~0d"},"c~d":{"type":"null"}}})",
       {R"({"a/b":null})"},
       {R"({"a/b":1})"}},
      {"true", {"1", "{}", "[null]"}, {""}},
  };
  for (const Language& language : languages) expect(language, shared(schema(language.description)));
}

TEST(JsonSchema, WhatIsNotSupportedIsRefusedByName) {
  const std::map<std::string, std::string> cases = {
      {R"({"type":"object","properties":{"a":{"not":{}}}})",
       "schema.properties.a: keyword \"not\""},
      {R"({"if":{},"then":{}})", "keyword \"if\""},
      {R"({"type":"array","uniqueItems":true})", "keyword \"uniqueItems\""},
      {R"({"type":"array","contains":{}})", "keyword \"contains\""},
      {R"({"type":"integer","multipleOf":3})", "keyword \"multipleOf\""},
      {R"({"patternProperties":{}})", "keyword \"patternProperties\""},
      {R"({"minProperties":1})", "keyword \"minProperties\""},
      {R"({"unheard":1})", "keyword \"unheard\""},
      {R"({"type":"text"})", "schema.type: expected one or a list of null, boolean"},
      {R"({"type":"string","format":"hostname"})", "schema.format: expected date"},
      {R"x({"type":"string","pattern":"(?=a)"})x", "schema.pattern: byte 2"},
      {R"({"type":"string","pattern":"a","maxLength":3})", "beside minLength"},
      {R"({"type":"string","maxLength":10001})", "schema.maxLength: expected an integer from 0"},
      {R"({"type":"number","minimum":0.5})", "schema.minimum: expected a whole number"},
      {R"({"type":"number","exclusiveMaximum":true})", "schema.exclusiveMaximum: expected"},
      {R"({"anyOf":[{"type":"null"}],"type":"null"})", "\"type\" beside \"anyOf\""},
      {R"({"oneOf":[{"type":"integer"},{"type":"number"}]})",
       "schema.oneOf[1]: may fit together with [0]"},
      {R"({"oneOf":[{"const":1},{"enum":["x",1.0]}]})", "may fit together with [0]"},
      {R"({"oneOf":[{"const":[1]},{"const":[1.0]}]})", "may fit together with [0]"},
      {R"({"allOf":[{},{}]})", "schema.allOf: expected a list of one"},
      {R"({"$ref":"http://x"})", "\"$ref\" (expected a place in this schema"},
      {R"({"$ref":"#/$defs/a"})", "\"$ref\" (expected a place"},
      {R"({"$ref":"#"})", "leads in a circle"},
      {R"({"$ref":"#/$defs/a","minimum":1,"$defs":{"a":{}}})", "\"minimum\" beside \"$ref\""},
      {R"({"anyOf":[{"$ref":"#"},{"type":"null"}]})", "leads to itself"},
      {R"({"type":"object","properties":{"a":{"$ref":"#"}},"required":["a"]})", "no text"},
      {R"({"type":"integer","minimum":5,"maximum":4})", "no text"},
      {"false", "no text"},
      {R"({"enum":[]})", "schema.enum: expected a list"},
      {R"({"properties":[]})", "schema.properties: expected an object"},
      {R"({"items":[{}]})", "schema.items: array (expected a schema"},
      {"3", "schema: number (expected a schema"},
  };
  for (const auto& [text, problem] : cases) {
    const Result<Network> refused = schema(text);
    ASSERT_FALSE(refused.ok()) << text;
    EXPECT_EQ(refused.status().code(), Code::kInvalidArgument);
    EXPECT_THAT(refused.status().message(), HasSubstr(problem)) << text;
  }
  // All of them at once.
  const std::string both = schema(R"({"not":{},"if":{}})").status().message();
  EXPECT_THAT(both, HasSubstr("\"not\""));
  EXPECT_THAT(both, HasSubstr("\"if\""));
  EXPECT_EQ(schema(R"({"type":"array","items":{"type":"string","minLength":9999},"minItems":9999,)"
                   R"("prefixItems":[]})")
                .status()
                .code(),
            Code::kInvalidArgument);
}

// A recursive schema of which the whole depth is used up can still be ended, at any point.
TEST(JsonSchema, NoWalkGetsStuck) {
  const std::string texts[] = {
      R"({"$defs":{"n":{"type":"object","properties":{"l":{"$ref":"#/$defs/m"},"r":{"$ref":"#/$defs/n"}}},
          "m":{"type":"array","items":{"$ref":"#/$defs/n"},"minItems":1}},"$ref":"#/$defs/n"})",
      R"({"type":"array","items":{"anyOf":[{"$ref":"#"},{"type":"boolean"}]},"minItems":1})",
  };
  std::mt19937 random(1);
  for (const std::string& text : texts) {
    const auto network = shared(schema(text));
    Matcher matcher(network);
    for (int round = 0; round < 20; ++round) {
      StateId state = matcher.start();
      for (int i = 0; i < 600 && matcher.goes_on(state); ++i) {
        std::vector<uint8_t> bytes;
        for (int b = 0; b < 256; ++b) {
          if (matcher.next(state, static_cast<uint8_t>(b)) != Matcher::kDead)
            bytes.push_back(static_cast<uint8_t>(b));
        }
        ASSERT_FALSE(bytes.empty());
        // Brackets first: as deep as it goes.
        const auto open = std::find_if(bytes.begin(), bytes.end(),
                                       [](uint8_t b) { return b == '[' || b == '{' || b == '"'; });
        const bool deeper = open != bytes.end() && random() % 8 != 0;
        state = matcher.next(state, deeper ? *open : bytes[random() % bytes.size()]);
        ASSERT_NE(state, Matcher::kTooMany);
      }
    }
  }
}

std::shared_ptr<const Tokenizer> letters() {
  // Byte-level: one token for each printable character, and some that are longer.
  Json vocab = Json::object();
  int id = 0;
  for (char c = '!'; c <= '~'; ++c) vocab[std::string(1, c)] = id++;
  for (const char* longer :
       {"\xC4\xA0", "\xC4\x8A", "true", "false", "{\"", "\":", "\",", "12", "aa"})
    vocab[longer] = id++;
  Json tokenizer = json_of(R"({"model":{"type":"BPE","merges":[]},"decoder":{"type":"ByteLevel"},
      "pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false},
      "added_tokens":[{"id":200,"content":"<end>","special":true},{"id":201,"content":"<other>","special":true}]})");
  tokenizer["model"]["vocab"] = vocab;
  Result<std::shared_ptr<const Tokenizer>> made =
      Tokenizer::parse(write_json(tokenizer), "letters");
  EXPECT_TRUE(made.ok()) << made.status().to_string();
  return made.ok() ? *made : nullptr;
}

constexpr int32_t kEnd = 200;

class GuideTest : public testing::Test {
 protected:
  const std::shared_ptr<const Tokenizer> tokenizer = letters();
  const std::shared_ptr<const TokenTable> table =
      std::make_shared<const TokenTable>(tokenizer, 256, std::vector<int32_t>{kEnd});

  ConstraintPtr compile(Spec spec) {
    auto made = Constraint::compile(spec, table);
    EXPECT_TRUE(made.ok()) << made.status().to_string();
    return *made;
  }
  std::string allowed(Guide& guide) {
    const auto mask = guide.allowed();
    EXPECT_TRUE(mask.ok()) << mask.status().to_string();
    std::string out;
    for (int32_t id = 0; id < 256; ++id) {
      if ((*mask)->contains(id))
        out += (out.empty() ? "" : " ") +
               (id == kEnd ? "END" : std::string(tokenizer->token_bytes(id)));
    }
    return out;
  }
  void take(Guide& guide, const std::string& token) {
    const Status status = guide.take(tokenizer->token_id(token));
    EXPECT_TRUE(status.ok()) << status.to_string();
  }
};

TEST_F(GuideTest, AllowsTheTokensThatCanGoOnAndTheEndWhereItIsComplete) {
  Guide guide(compile({Spec::Kind::kRegex, "a(a|1)?2?"}));
  EXPECT_EQ(allowed(guide), "a aa");
  EXPECT_FALSE(guide.complete());
  take(guide, "a");
  EXPECT_EQ(allowed(guide), "1 2 a 12 END");
  EXPECT_TRUE(guide.complete());
  EXPECT_FALSE(guide.closed());
  take(guide, "12");
  EXPECT_TRUE(guide.closed());
  EXPECT_EQ(allowed(guide), "END");
  EXPECT_EQ(guide.take(kEnd).code(), Code::kOk);
}

TEST_F(GuideTest, MasksAreFoundOncePerState) {
  const ConstraintPtr constraint = compile({Spec::Kind::kRegex, "[a-z]*"});
  for (int round = 0; round < 3; ++round) {
    Guide guide(constraint);
    for (int i = 0; i < 5; ++i) {
      allowed(guide);
      take(guide, "a");
    }
  }
  EXPECT_LE(constraint->masks_found(), 2u);
}

TEST_F(GuideTest, WhatIsKeptIsBoundedAndAnswersGoOn) {
  // Every character counts, so that every state is new.
  const ConstraintPtr constraint = compile(
      {Spec::Kind::kJsonSchema, R"({"type":"array","items":{"type":"string","maxLength":9000}})"});
  Guide guide(constraint);
  take(guide, "[");
  take(guide, "\"");
  for (int i = 0; i < 9000; ++i) {
    const auto mask = guide.allowed();
    ASSERT_TRUE(mask.ok()) << i << mask.status().to_string();
    ASSERT_TRUE((*mask)->contains(tokenizer->token_id("b"))) << i;
    ASSERT_EQ(guide.take(tokenizer->token_id("b")).code(), Code::kOk);
  }
  EXPECT_EQ(allowed(guide), "\" \",");
}

TEST_F(GuideTest, AVocabularyThatCannotWriteItIsTold) {
  Guide guide(compile({Spec::Kind::kRegex, "aé"}));  // no token for its bytes
  take(guide, "a");
  EXPECT_EQ(guide.allowed().status().code(), Code::kFailedPrecondition);
}

TEST_F(GuideTest, AmbiguityIsCutOff) {
  // Ever more counts of counts: the states become too many for one mask.
  Guide guide(compile({Spec::Kind::kRegex, "((a{1,40}a{1,40}){1,20}b?){1,20}c"}));
  Status status;
  for (int i = 0; i < 200 && status.ok(); ++i) {
    status = guide.allowed().status();
    if (status.ok()) status = guide.take(tokenizer->token_id("a"));
  }
  EXPECT_TRUE(status.ok() || status.code() == Code::kResourceExhausted) << status.to_string();
}

// Whoever may not wait for all of it goes on a little at a time, and finds the same.
TEST_F(GuideTest, MasksAreFoundInPortions) {
  const Spec hostile{Spec::Kind::kRegex, "((a{1,40}a{1,40}){1,20}b?){1,20}c"};
  Guide whole(compile(hostile)), slow(compile(hostile));
  constexpr uint64_t kPortion = 8;
  size_t portions = 0;
  for (int i = 0; i < 6; ++i) {
    uint64_t work = 0;
    do {
      EXPECT_FALSE(slow.ready());
      work = kPortion;
      ++portions;
    } while (!slow.look_on(&work));
    EXPECT_TRUE(slow.ready());
    const auto one = whole.allowed(), other = slow.allowed();
    ASSERT_TRUE(one.ok() && other.ok());
    EXPECT_EQ((*one)->words(), (*other)->words());
    take(whole, "a");
    take(slow, "a");
  }
  EXPECT_GT(portions, 24u) << "too little is asked for to tell";
}

TEST_F(GuideTest, WhoStandsAtTheSamePlaceSharesTheSearch) {
  const ConstraintPtr constraint = compile({Spec::Kind::kRegex, "(a{1,40}a{1,40}){1,20}c"});
  Guide one(constraint), other(constraint);
  uint64_t most = 1'000'000, work = 8;
  while (!one.look_on(&work)) {
    work = 8;
    EXPECT_FALSE(other.ready());
  }
  EXPECT_TRUE(other.look_on(&most));
  EXPECT_EQ(most, 1'000'000u) << "looked for once more";
  EXPECT_EQ(*one.allowed(), *other.allowed());
  EXPECT_EQ(constraint->masks_found(), 1u);
}

// What is kept is replaced while somebody looks: he goes on, or he would begin anew for ever.
TEST_F(GuideTest, ASearchSurvivesWhatIsKept) {
  const ConstraintPtr constraint = compile(
      {Spec::Kind::kJsonSchema, R"({"type":"array","items":{"type":"string","maxLength":9000}})"});
  Guide slow(constraint), busy(constraint);
  for (const char* token : {"[", "\""}) {
    take(slow, token);
    take(busy, token);
  }
  take(busy, "b");  // somewhere else, or it would find what the other looks for
  uint64_t work = 1;
  ASSERT_FALSE(slow.look_on(&work));
  for (int i = 0; i < 8000; ++i) {
    ASSERT_TRUE(busy.allowed().ok());
    ASSERT_TRUE(busy.take(tokenizer->token_id("b")).ok());
  }
  work = 1;
  ASSERT_FALSE(slow.look_on(&work)) << "it is to go on after the change";
  work = 1'000'000;
  EXPECT_TRUE(slow.look_on(&work));
  EXPECT_TRUE((*slow.allowed())->contains(tokenizer->token_id("b")));
  take(slow, "b");
  EXPECT_TRUE((*slow.allowed())->contains(tokenizer->token_id("b")));
}

TEST_F(GuideTest, TheCacheGivesTheSameConstraintAgain) {
  ConstraintCache cache(tokenizer, 256, {kEnd});
  const auto first = cache.get({Spec::Kind::kRegex, "a"});
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(*cache.get({Spec::Kind::kRegex, "a"}), *first);
  for (size_t i = 0; i < kMaxCached; ++i)
    ASSERT_TRUE(cache.get({Spec::Kind::kRegex, fmt::format("b{{{}}}", i)}).ok());
  EXPECT_NE(*cache.get({Spec::Kind::kRegex, "a"}), *first);
  EXPECT_FALSE(cache.get({Spec::Kind::kJsonSchema, "{"}).ok());
}

// Metaspace decoders take the space of the first token off: the answer begins without it.
TEST(TokenTable, TheFirstTokenIsReadAsTheDecoderWritesIt) {
  Json tokenizer =
      json_of(R"({"model":{"type":"BPE","vocab":{"a":0,"▁a":1,"▁":2,"b":3},"merges":[]},
      "decoder":{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},
                 {"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]}})");
  const auto made = Tokenizer::parse(write_json(tokenizer), "space");
  ASSERT_TRUE(made.ok()) << made.status().to_string();
  const TokenTable table(*made, 4, {});
  EXPECT_TRUE(table.start_differs());
  EXPECT_EQ(table.bytes(1, /*at_start=*/true), "a");
  EXPECT_EQ(table.bytes(1, /*at_start=*/false), " a");
  const auto constraint =
      Constraint::compile({Spec::Kind::kRegex, "a a"},
                          std::make_shared<const TokenTable>(*made, 4, std::vector<int32_t>{}));
  Guide guide(*constraint);
  EXPECT_TRUE((*guide.allowed())->contains(1));
  EXPECT_FALSE((*guide.allowed())->contains(2));  // would be nothing
  ASSERT_TRUE(guide.take(1).ok());
  EXPECT_TRUE((*guide.allowed())->contains(1));
  ASSERT_TRUE(guide.take(1).ok());
  EXPECT_TRUE(guide.closed());
}

}  // namespace
}  // namespace chimera::constraint
