#include "text/constraint/parts.h"

#include <map>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/json/testing.h"
#include "base/json/writer.h"
#include "text/constraint/constraint.h"

namespace chimera::constraint {
namespace {

using testing::HasSubstr;

/// Byte-level: one token for each printable character, a word that is an added token without being
/// special, and special tokens.
std::shared_ptr<const Tokenizer> letters() {
  Json vocab = Json::object();
  int id = 0;
  for (char c = '!'; c <= '~'; ++c) vocab[std::string(1, c)] = id++;
  for (const char* longer : {"\xC4\xA0", "\xC4\x8A", "\xC3\xBF", "f\"", "<c", "all>"})
    vocab[longer] = id++;
  Json tokenizer = json_of(R"({"model":{"type":"BPE","merges":[]},"decoder":{"type":"ByteLevel"},
      "pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false},
      "added_tokens":[{"id":200,"content":"<end>","special":true},
                      {"id":201,"content":"<call>","special":true},
                      {"id":202,"content":"<other>","special":true},
                      {"id":203,"content":"<tool>","special":false}]})");
  tokenizer["model"]["vocab"] = vocab;
  auto made = Tokenizer::parse(write_json(tokenizer), "letters");
  EXPECT_TRUE(made.ok()) << made.status().to_string();
  return made.ok() ? *made : nullptr;
}

constexpr int32_t kEnd = 200, kCall = 201, kOther = 202;

class PartsTest : public testing::Test {
 protected:
  const std::shared_ptr<const Tokenizer> tokenizer = letters();
  const std::shared_ptr<const TokenTable> table =
      std::make_shared<const TokenTable>(tokenizer, 256, std::vector<int32_t>{kEnd});

  Result<std::shared_ptr<const Constraint>> compile(const std::string& parts) {
    return Constraint::compile({Spec::Kind::kParts, parts}, table);
  }
  /// A special token stands in `text` as \xFF and its text.
  bool fits(const std::string& parts, std::string_view text) {
    const Result<Network> network = parts_network(json_of(parts), *table, "parts");
    EXPECT_TRUE(network.ok()) << network.status().to_string();
    if (!network.ok()) return false;
    Matcher matcher(std::make_shared<const Network>(*network));
    StateId state = matcher.start();
    for (const char c : text) state = matcher.next(state, static_cast<uint8_t>(c));
    return matcher.accepts(state);
  }
};

TEST_F(PartsTest, FollowOneAnother) {
  struct Language {
    std::string parts;
    std::vector<std::string_view> in, out;
  };
  const Language languages[] = {
      {"[]", {""}, {"a"}},
      {R"([{"text":"a\"b"},{"regex":"c+"},{"json_schema":{"type":"integer"}}])",
       {"a\"bc1", "a\"bccc-20"},
       {"a\"b1", "c1", "a\"bc"}},
      {R"([{"json_object":true},{"text":"."}])", {"{\"a\":[{}]}.", "{}."}, {"[].", "{}"}},
      {R"([{"one_of":[[{"text":"a"}],[],[{"text":"bc"},{"text":"d"}]]},{"text":"!"}])",
       {"a!", "!", "bcd!"},
       {"ad!", "b!", ""}},
      {R"([{"text":"x"},{"repeat":[{"text":","},{"regex":"[xy]"}]}])",
       {"x", "x,y,x"},
       {"x,", "xy", ""}},
      {R"([{"repeat":[{"regex":"a*"}]},{"text":"b"}])", {"b", "aab"}, {"aa"}},
      // A mark is the special token where there is one, else its words.
      {R"([{"mark":"<call>"},{"text":"f"}])", {"\xFF<call>f"}, {"<call>f"}},
      {R"([{"mark":"<tool>"},{"mark":"<none>"}])", {"<tool><none>"}, {"\xFF<tool><none>"}},
      // The same schema under two names.
      {R"([{"json_schema":{"const":1},"name":"a"},{"name":"b","json_schema":{"const":1}}])",
       {"11"},
       {"1"}},
  };
  for (const Language& language : languages) {
    for (const auto text : language.in)
      EXPECT_TRUE(fits(language.parts, text)) << language.parts << " <- " << text;
    for (const auto text : language.out)
      EXPECT_FALSE(fits(language.parts, text)) << language.parts << " <- " << text;
  }
}

TEST_F(PartsTest, WordsWithoutMarks) {
  const std::string parts =
      R"([{"without":["<tool>","aab","\uff5cé"]},{"one_of":[[],[{"text":"<tool>"},{"text":"!"}]]}])";
  for (const std::string_view text :
       {"", "x", "<too", "<<tool", "aa", "aaab!", "\xF0\x9F\x98\x80\n",
        "\xEF\xBD\x9C"
        "e",
        "<tool>!", "a <<tool>!", "<to<tool>!"}) {
    const bool contains = text == "aaab!";
    EXPECT_EQ(fits(parts, text), !contains) << text;
  }
  for (const std::string_view text : {"<tool>", "<tool>x", "<tool>!<tool>!", "baab", "\xFF<call>",
                                      "\xEF\xBD\x9C\xC3\xA9", "\xC3", "\xFF"}) {
    EXPECT_FALSE(fits(parts, text)) << text;
  }
  EXPECT_TRUE(fits(R"([{"without":[]}])", "<tool>aab"));
  EXPECT_FALSE(fits(R"([{"without":[]}])", "\xFF<call>"));
}

TEST_F(PartsTest, SpecialTokensComeAsMarksAlone) {
  const auto made = compile(R"([{"without":[]},{"mark":"<call>"},{"text":"f"}])");
  ASSERT_TRUE(made.ok()) << made.status().to_string();
  Guide guide(*made);
  const auto allowed = [&](int32_t token) { return (*guide.allowed())->contains(token); };
  EXPECT_TRUE(allowed(kCall));
  EXPECT_TRUE(allowed(tokenizer->token_id("f")));
  EXPECT_FALSE(allowed(kOther));
  EXPECT_FALSE(allowed(kEnd));
  EXPECT_FALSE(allowed(tokenizer->token_id("\xC3\xBF")));  // the byte FF
  ASSERT_TRUE(guide.take(tokenizer->token_id("x")).ok());
  ASSERT_TRUE(guide.take(kCall).ok());
  EXPECT_TRUE(allowed(tokenizer->token_id("f")));
  EXPECT_FALSE(allowed(kCall));
  EXPECT_FALSE(allowed(tokenizer->token_id("f\"")));
  ASSERT_TRUE(guide.take(tokenizer->token_id("f")).ok());
  EXPECT_TRUE(guide.closed());
  // Elsewhere no special token may come, whatever fits its words.
  const auto any = Constraint::compile({Spec::Kind::kRegex, "[^a]*"}, table);
  ASSERT_TRUE(any.ok());
  Guide words(*any);
  EXPECT_FALSE((*words.allowed())->contains(kCall));
  EXPECT_TRUE((*words.allowed())->contains(203));
}

TEST_F(PartsTest, WhatIsWrongIsToldByItsPlace) {
  const std::map<std::string, std::string> cases = {
      {"{}", "constraint.parts: object (expected a list of parts)"},
      {"[1]", "constraint.parts[0]: expected an object with one of text, mark"},
      {R"([{"text":"a","mark":"b"}])", "constraint.parts[0]: expected an object with one of"},
      {R"([{"words":"a"}])", "constraint.parts[0]: \"words\" (expected one of text"},
      {R"([{"text":1}])", "constraint.parts[0].text: expected a string"},
      {R"([{"regex":"("}])", "constraint.parts[0].regex: byte"},
      {R"([{"json_object":false}])", "constraint.parts[0].json_object: expected true"},
      {R"([{"json_schema":{"not":{}}}])", "constraint.parts[0].json_schema: keyword \"not\""},
      {R"([{"json_schema":{"not":{}},"name":"tools[0].parameters"}])",
       "tools[0].parameters: keyword \"not\""},
      {R"([{"text":"a","name":"b"}])", "expected an object with"},
      {R"([{"without":["a",""]}])", "constraint.parts[0].without: expected at most 8 strings"},
      {R"([{"one_of":[]}])", "constraint.parts[0].one_of: expected alternatives"},
      {R"([{"one_of":[[],{}]}])", "constraint.parts[0].one_of[1]: object"},
      {R"([{"repeat":[[]]}])", "constraint.parts[0].repeat[0]: expected an object"},
      {R"([{"json_schema":false}])", "no text"},
      {"[", "constraint.parts: "},
  };
  for (const auto& [parts, problem] : cases) {
    const auto refused = compile(parts);
    ASSERT_FALSE(refused.ok()) << parts;
    EXPECT_EQ(refused.status().code(), Code::kInvalidArgument);
    EXPECT_THAT(refused.status().message(), HasSubstr(problem)) << parts;
  }
  const std::string both = compile(R"([{"text":1},{"regex":2}])").status().message();
  EXPECT_THAT(both, HasSubstr("[0].text"));
  EXPECT_THAT(both, HasSubstr("[1].regex"));
}

}  // namespace
}  // namespace chimera::constraint
