// Behaviour of the tokenizer beyond the reference outputs: what is refused and how, protection
// from injected special tokens, added-token flags, pre-tokenizers, expressions, lossy decoding.
#include "text/tokenizer/tokenizer.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "text/tokenizer/regex/regex.h"
#include "text/tokenizer/testing.h"
#include "text/unicode.h"

namespace chimera {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(TokenizerTest, MalformedFilesAreRefusedByName) {
  struct Bad {
    std::string json;
    Code code;
    std::string says;
  };
  const auto with = [](auto change) {
    Sketch s;
    change(s);
    return s.json();
  };
  const std::vector<Bad> table = {
      {"", Code::kDataCorrupt, "JSON: the text ends early"},
      {"[]", Code::kDataCorrupt, "expected an object"},
      {"{\"model\":", Code::kDataCorrupt, "JSON: the text ends early"},
      {"{}", Code::kDataCorrupt, "model: null (expected an object)"},
      {std::string(100, '['), Code::kDataCorrupt, "nested deeper"},
      {"{\"a\":\"\xFF\"}", Code::kDataCorrupt, "JSON: invalid UTF-8 at line 1, column 7"},
      {R"({"version":"2.0"})", Code::kUnimplemented, "version is \"2.0\""},
      {R"({"version":7})", Code::kDataCorrupt, "version: 7 (expected a string)"},
      {R"({"model":{"type":"WordPiece"}})", Code::kUnimplemented, "\"WordPiece\""},
      {R"({"model":{"type":"Unigram"}})", Code::kDataCorrupt, "\"vocab\" is missing"},
      {R"({"model":{"type":"Unigram","vocab":{"a":0}}})", Code::kDataCorrupt,
       "vocab: an object (expected an array)"},
      {R"({"model":{"type":"Unigram","vocab":[["a"]]}})", Code::kDataCorrupt, "model.vocab[0]"},
      {R"({"model":{"type":"Unigram","vocab":[["a","b"]]}})", Code::kDataCorrupt, "model.vocab[0]"},
      {R"({"model":{"type":"Unigram","unk_id":1,"vocab":[["a",0]]}})", Code::kDataCorrupt,
       "\"unk_id\" is 1"},
      {R"({"model":{"type":"BPE"}})", Code::kDataCorrupt, "\"vocab\" is missing"},
      {R"({"model":{"type":"BPE","vocab":[],"merges":[]}})", Code::kDataCorrupt,
       "vocab: an array of 0 (expected an object)"},
      {R"({"model":{"type":"BPE","vocab":{"a":-1},"merges":[]}})", Code::kDataCorrupt, "id -1"},
      {R"({"model":{"type":"BPE","vocab":{"a":1.5},"merges":[]}})", Code::kDataCorrupt, "id 1.5"},
      {R"({"model":{"type":"BPE","vocab":{"a":"0"},"merges":[]}})", Code::kDataCorrupt, "id \"0\""},
      {R"({"model":{"type":"BPE","vocab":{"a":16777216},"merges":[]}})", Code::kDataCorrupt,
       "16777216"},
      {R"({"model":{"type":"BPE","vocab":{"a":16777215},"merges":[]}})", Code::kDataCorrupt,
       "only"},
      {R"({"model":{"type":"BPE","vocab":{"a":18446744073709551615},"merges":[]}})",
       Code::kDataCorrupt, "not in 0.."},
      {R"({"model":{"type":"BPE","vocab":{"a":0,"b":0},"merges":[]}})", Code::kDataCorrupt,
       "belongs to both"},
      {with([](Sketch& s) { s.merges = R"(["ab"])"; }), Code::kDataCorrupt, "merges[0]"},
      {with([](Sketch& s) { s.merges = R"(["a b","a b c"])"; }), Code::kDataCorrupt, "merges[1]"},
      {with([](Sketch& s) { s.merges = R"([["a"]])"; }), Code::kDataCorrupt, "merges[0]"},
      {with([](Sketch& s) { s.merges = R"([7])"; }), Code::kDataCorrupt, "merges[0]"},
      {with([](Sketch& s) { s.merges = R"(["a c"])"; }), Code::kDataCorrupt, "\"ac\" is not in"},
      {with([](Sketch& s) { s.merges = "{}"; }), Code::kDataCorrupt,
       "merges: an object (expected an array)"},
      {with([](Sketch& s) { s.model_extra = R"("dropout":0.1,)"; }), Code::kUnimplemented,
       "dropout"},
      {with([](Sketch& s) { s.model_extra = R"("byte_fallback":1,)"; }), Code::kDataCorrupt,
       "byte_fallback"},
      {with([](Sketch& s) { s.normalizer = R"({"type":"BertNormalizer"})"; }), Code::kUnimplemented,
       "BertNormalizer"},
      {with([](Sketch& s) {
         s.normalizer = R"({"type":"Precompiled","precompiled_charsmap":"?"})";
       }),
       Code::kDataCorrupt, "precompiled_charsmap"},
      {with([](Sketch& s) { s.normalizer = R"({"type":"Replace","content":""})"; }),
       Code::kDataCorrupt, "pattern"},
      {with([](Sketch& s) { s.pre_tokenizer = R"({"type":"BertPreTokenizer"})"; }),
       Code::kUnimplemented, "BertPreTokenizer"},
      {with([](Sketch& s) {
         s.pre_tokenizer =
             R"({"type":"Sequence","pretokenizers":[{"type":"Digits"},{"type":"Odd"}]})";
       }),
       Code::kUnimplemented, "pre_tokenizer.pretokenizers[1]: type \"Odd\""},
      {with([](Sketch& s) {
         s.pre_tokenizer =
             R"({"type":"Split","pattern":{"Regex":"(a"},"behavior":"Isolated","invert":false})";
       }),
       Code::kDataCorrupt, "group without ')'"},
      {with([](Sketch& s) {
         s.pre_tokenizer =
             R"json({"type":"Split","pattern":{"Regex":"(?~a)"},"behavior":"Isolated"})json";
       }),
       Code::kUnimplemented, "(?~a"},
      {with([](Sketch& s) {
         s.pre_tokenizer = R"({"type":"Split","pattern":{"String":"a"},"behavior":"Odd"})";
       }),
       Code::kDataCorrupt, "\"behavior\" is \"Odd\""},
      {with([](Sketch& s) { s.pre_tokenizer = R"({"type":"FixedLength","length":0})"; }),
       Code::kDataCorrupt, "\"length\" is 0"},
      {with([](Sketch& s) { s.decoder = R"({"type":"CTC"})"; }), Code::kUnimplemented, "CTC"},
      {with([](Sketch& s) {
         s.decoder = R"({"type":"Sequence","decoders":[{"type":"Fuse"},{"type":"ByteFallback"}]})";
       }),
       Code::kUnimplemented, "after the tokens were fused"},
      {with([](Sketch& s) { s.post_processor = R"({"type":"Odd"})"; }), Code::kUnimplemented,
       "Odd"},
      {with([](Sketch& s) {
         s.post_processor =
             R"({"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>"}},)"
             R"({"Sequence":{"id":"A"}}],"special_tokens":{"<s>":{"ids":[5000]}}})";
       }),
       Code::kDataCorrupt, "token id 5000"},
      {with([](Sketch& s) { s.added_tokens = "{}"; }), Code::kDataCorrupt, "added_tokens"},
      {with([](Sketch& s) { s.added_tokens = "[" + added(3, "zz") + "]"; }), Code::kDataCorrupt,
       "belongs to"},
      {with([](Sketch& s) { s.added_tokens = "[" + added(98, "a") + "]"; }), Code::kDataCorrupt,
       "but 65 in model.vocab"},
      {with(
           [](Sketch& s) { s.added_tokens = "[" + added(97, "x1") + "," + added(98, "x1") + "]"; }),
       Code::kDataCorrupt, "listed twice"},
      {with([](Sketch& s) { s.added_tokens = R"([{"id":97}])"; }), Code::kDataCorrupt,
       "\"content\" is missing"},
      {with([](Sketch& s) { s.added_tokens = R"([{"id":-4,"content":"q1"}])"; }),
       Code::kDataCorrupt, "added_tokens[0].id: -4 (expected an integer from 0"},
  };
  for (const Bad& bad : table) {
    SCOPED_TRACE(bad.json.substr(0, 120));
    const auto parsed = Tokenizer::parse(bad.json, "file");
    ASSERT_FALSE(parsed.ok());
    EXPECT_EQ(parsed.status().code(), bad.code) << parsed.status().to_string();
    EXPECT_THAT(parsed.status().message(), HasSubstr(bad.says));
    EXPECT_THAT(parsed.status().message(), testing::StartsWith("file: "));
  }
}

TEST(TokenizerTest, InvalidUtf8IsRefusedWithItsOffset) {
  const auto tokenizer = Sketch().build();
  const std::vector<std::pair<std::string, std::string>> table = {{"\xFF", "byte 0"},
                                                                  {"ab\xC3", "byte 2"},
                                                                  {"a\xED\xA0\x80", "byte 1"},
                                                                  {"a\xC0\xAF", "byte 1"},
                                                                  {"a\xF5\x80\x80\x80", "byte 1"},
                                                                  {"\x80", "byte 0"},
                                                                  {"\xE2\x82\xAC\xE2", "byte 3"}};
  for (const auto& [text, says] : table) {
    const auto ids = tokenizer->encode(text, {});
    ASSERT_FALSE(ids.ok());
    EXPECT_EQ(ids.status().code(), Code::kInvalidArgument);
    EXPECT_THAT(ids.status().message(), HasSubstr(says));
  }
}

TEST(TokenizerTest, UnknownIdsStandForNothing) {
  const auto tokenizer = Sketch().build();
  const auto negative = tokenizer->decode(std::vector<int32_t>{1, -1}, false);
  ASSERT_FALSE(negative.ok());
  EXPECT_EQ(negative.status().code(), Code::kInvalidArgument);
  EXPECT_THAT(negative.status().message(), HasSubstr("id -1 at position 1"));
  for (const int32_t id : {97, 1 << 30}) {
    EXPECT_EQ(*tokenizer->decode(std::vector<int32_t>{'a' - 32, id, 'b' - 32}, false), "ab");
  }
  for (const int32_t id : {-1, 97, 1 << 30}) {
    EXPECT_EQ(tokenizer->token_bytes(id), "");
    EXPECT_FALSE(tokenizer->is_special(id));
    EXPECT_EQ(StreamDecoder(tokenizer, false).push(id), "");
  }
  EXPECT_EQ(tokenizer->token_id("ab"), 96);
  EXPECT_EQ(tokenizer->token_id("absent"), -1);
}

TEST(TokenizerTest, UserTextCannotInjectSpecialTokens) {
  Sketch s;
  s.added_tokens = "[" + added(97, "<|end|>", R"(,"special":true)") + "," +
                   added(98, "<|tool|>", R"(,"special":false)") + "]";
  const auto tokenizer = s.build();
  EXPECT_THAT(tokens(*tokenizer, "a<|end|><|tool|>", true),
              ElementsAre("a", "<|end|>", "<|tool|>"));
  EXPECT_THAT(tokens(*tokenizer, "a<|end|><|tool|>", false),
              ElementsAre("a", "<", "|", "e", "n", "d", "|", ">", "<|tool|>"));
}

TEST(TokenizerTest, NoSpecialOfARealVocabularyComesOutOfUserText) {
  const auto dir = std::filesystem::path(CHIMERA_SOURCE_DIR) / "../shared/golden/open/tokenizers";
  if (!std::filesystem::exists(dir)) GTEST_SKIP() << "no golden material at " << dir;
  for (const char* name : {"dolma2", "tiny312", "mixtral_v1"}) {
    SCOPED_TRACE(name);
    auto loaded = Tokenizer::load((dir / name / "tokenizer.json").string());
    ASSERT_TRUE(loaded.ok()) << loaded.status().to_string();
    const Tokenizer& tokenizer = **loaded;
    int specials = 0;
    for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
      if (!tokenizer.is_special(id)) continue;
      ++specials;
      const auto single = tokenizer.decode(std::vector<int32_t>{id}, false);
      for (const std::string& text : {*single, "x" + *single + "y", *single + *single}) {
        const auto ids = tokenizer.encode(text, {.match_special = false});
        ASSERT_TRUE(ids.ok());
        for (const int32_t result : *ids) EXPECT_FALSE(tokenizer.is_special(result)) << text;
        EXPECT_NE(*ids, *tokenizer.encode(text, {.match_special = true}));
      }
    }
    EXPECT_GT(specials, 0);
  }
}

TEST(TokenizerTest, AddedTokenFlags) {
  Sketch s;
  s.added_tokens = "[" + added(97, "<m>", R"(,"lstrip":true,"rstrip":true)") + "," +
                   added(98, "wo", R"(,"single_word":true)") + "," + added(99, "<m>+") + "]";
  const auto tokenizer = s.build();
  EXPECT_THAT(tokens(*tokenizer, "a  <m> \tb"), ElementsAre("a", "<m>", "b"));
  EXPECT_THAT(tokens(*tokenizer, "a <m>+ b"), ElementsAre("a", " ", "<m>+", " ", "b"));
  EXPECT_THAT(tokens(*tokenizer, "wo two wo!"),
              ElementsAre("wo", " ", "t", "w", "o", " ", "wo", "!"));
}

TEST(TokenizerTest, NormalizedAddedTokensMatchNormalizedText) {
  Sketch s;
  s.normalizer = R"({"type":"Lowercase"})";
  s.added_tokens = R"([{"id":97,"content":"DAY","normalized":true},)"
                   R"({"id":98,"content":"RAW","normalized":false}])";
  const auto tokenizer = s.build();
  EXPECT_EQ(*tokenizer->encode("DayRAWraw", {}),
            (std::vector<int32_t>{97, 98, 'r' - 32, 'a' - 32, 'w' - 32}));
}

TEST(TokenizerTest, SplitBehaviors) {
  const std::vector<std::pair<std::string, std::vector<std::string>>> table = {
      {"Removed", {"a", "ab", "b"}},
      {"Isolated", {"a", "-", "ab", "-", "-", "b"}},
      {"MergedWithPrevious", {"a-", "ab-", "-", "b"}},
      {"MergedWithNext", {"a", "-ab", "-", "-b"}},
      {"Contiguous", {"a", "-", "ab", "--", "b"}},
  };
  for (const auto& [behavior, expected] : table) {
    SCOPED_TRACE(behavior);
    // ignore_merges looks pieces up whole, so pieces show as tokens.
    Sketch s;
    s.pre_tokenizer = fmt::format(
        R"({{"type":"Split","pattern":{{"String":"-"}},"behavior":"{}","invert":false}})",
        behavior);
    s.model_extra = R"("ignore_merges":true,)";
    std::string json = s.json();
    const std::string extra = R"(,"a-":97,"ab-":98,"-ab":99,"-b":100,"--":101)";
    json.insert(json.find("\"ab\":96") + 7, extra);
    const auto parsed = Tokenizer::parse(json, "split");
    ASSERT_TRUE(parsed.ok()) << parsed.status().to_string();
    EXPECT_EQ(tokens(**parsed, "a-ab--b"), expected);
  }
}

TEST(TokenizerTest, MetaspaceAndDecoderOfSentencePiece) {
  Sketch s;
  s.pre_tokenizer =
      "{\"type\":\"Metaspace\",\"replacement\":\"\xE2\x96\x81\",\"prepend_scheme\":\"first\"}";
  s.decoder = "{\"type\":\"Metaspace\",\"replacement\":\"\xE2\x96\x81\"}";
  s.added_tokens = "[" + added(97, "<m>") + "]";
  const auto tokenizer = s.build();
  const auto ids = tokenizer->encode("a b<m>c", {});
  EXPECT_EQ(*ids, (std::vector<int32_t>{95, 'a' - 32, 95, 'b' - 32, 97, 'c' - 32}));
  EXPECT_EQ(*tokenizer->decode(*ids, false), "a b<m>c");
}

TEST(TokenizerTest, StripHoldsBackWhatMayBeTheEnd) {
  Sketch s;
  s.decoder =
      R"({"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"_"},)"
      R"("content":" "},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":1}]})";
  const auto tokenizer = s.build();
  StreamDecoder stream(tokenizer, false);
  std::string text;
  for (const char c : std::string("__a_b__")) text += stream.push(c - 32);
  EXPECT_EQ(text, " a b ");
  EXPECT_EQ(stream.flush(), "");
  EXPECT_EQ(*tokenizer->decode(*tokenizer->encode("__a_b__", {}), false), " a b ");
}

TEST(TokenizerTextTest, LossyDecodingFollowsMaximalSubparts) {
  const std::string r(kReplacementCharacter);
  const std::vector<std::pair<std::string, std::string>> table = {
      // Unicode 15, tables 3-8 to 3-11.
      {"\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41", r + r + r + r + r + r + r + r + "A"},
      {"\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41", r + r + r + r + r + r + r + r + "A"},
      {"\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42", r + r + r + r + r + "A" + r + r + "B"},
      {"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41", r + r + r + r + "A"},
      {"\xF0\x9F\x98", r},
  };
  for (const auto& [bytes, expected] : table) {
    std::string pending;
    std::string text;
    for (const char b : bytes) {  // byte by byte as a stream brings them
      pending += b;
      drain_lossy(pending, false, text);
      EXPECT_LT(pending.size(), 4u);
    }
    drain_lossy(pending, true, text);
    EXPECT_EQ(text, expected);
  }
}

TEST(TokenizerRegexTest, OnigurumaMeaning) {
  struct Case {
    std::string pattern;
    std::string text;
    std::vector<std::string> matches;
  };
  const std::vector<Case> table = {
      {"\\s+", "a\xE1\xA0\x8E b", {" "}},  // U+180E is no white space
      {"\\h+", "xyz09afg", {"09af"}},      // hexadecimal, not horizontal space
      {"\\w+", "a\xCC\x81_1-b", {"a\xCC\x81_1", "b"}},
      {"[^\\W_]+", "ab_c-d", {"ab", "c", "d"}},
      {"[a-z&&[^aeiou]]+", "abcde", {"bcd"}},
      {"[a-c[x-z]]+", "abxq", {"abx"}},
      {"[[:alpha:]\\d]+", "a1-b", {"a1", "b"}},
      {"a{,2}b", "aaab", {"aab"}},
      {"(?:ab){2}+", "ababababab", {"abababab"}},   // greedy of {2}, not possessive
      {"x{2}?", "xxx", {"xx", ""}},                 // optional, not lazy
      {"\\w+", "a\xC2\xB2 b", {"a\xC2\xB2", "b"}},  // Oniguruma's Latin-1 table
      {"[\\w]+", "a\xC2\xB2 b", {"a", "b"}},
      {"[[:punct:]]+", "a+\xE2\x82\xAC.", {"+\xE2\x82\xAC."}},
      {"\\p{Punct}+", "a+.", {"."}},
      {"(?i:'s)|(?i)k(?-i)ss", "'S \xE2\x84\xAAss 'ss kSS", {"'S", "\xE2\x84\xAAss", "'s"}},
      {"(?m:a.b)", "a\nb", {"a\nb"}},  // dot matches newline
      {"a.b", "a\nb", {}},
      {"^b$", "a\nb\nc", {"b"}},
      {"a(?i)b|c", "aB aC", {"aB", "aC"}},  // holds across the alternative
      {"\\p{^L}+", "a12b", {"12"}},
      {"\\p{Han}+", "\xE6\xBC\xA2\xE5\xAD\x97 kana", {"\xE6\xBC\xA2\xE5\xAD\x97"}},
      {"\\p{Uppercase_Letter}", "aBc", {"B"}},
      {"\\bab\\b", "ab cab ab", {"ab", "ab"}},
      {"[\\u3040-\\u309F]", "a\xE3\x81\x82", {"\xE3\x81\x82"}},
      {"[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+", " word", {" word"}},
      {"\\s+(?!\\S)|\\s+", "a   b", {"  ", " "}},
      {"[-a]+", "-a-", {"-a-"}},
      {"[a\\-z]+", "a-zb", {"a-z"}},
      {"\\v", "a\n\x0B", {"\x0B"}},
      {"", "ab", {"", "", ""}},
  };
  for (const Case& c : table) {
    SCOPED_TRACE(c.pattern);
    const auto regex = tokenizer::Regex::compile(c.pattern);
    ASSERT_TRUE(regex.ok()) << regex.status().to_string();
    std::vector<std::string> matches;
    const Status status = regex->for_each_match(c.text, [&](size_t begin, size_t end) {
      matches.push_back(c.text.substr(begin, end - begin));
    });
    ASSERT_TRUE(status.ok()) << status.to_string();
    EXPECT_EQ(matches, c.matches);
  }
}

TEST(TokenizerRegexTest, WhatPcre2LacksIsRefused) {
  for (const char* pattern :
       {"\\G", "\\y", "(?~x)", "(*FAIL)", "(?W:a)", "\\p{NoSuchThing}", "[\\R]", "(?|a|b)", "\\K",
        "\\X", "(?i)ss", "(?i:fi)", "(?i)\xC3\x9F", "(?<=a+)b"}) {
    const auto regex = tokenizer::Regex::compile(pattern);
    ASSERT_FALSE(regex.ok()) << pattern;
    EXPECT_EQ(regex.status().code(), Code::kUnimplemented) << regex.status().to_string();
  }
  for (const char* pattern :
       {"(", ")", "[a", "[z-a]", "*", "\\x{110000}", "\\p{L", "(?<n", "a**"}) {
    const auto regex = tokenizer::Regex::compile(pattern);
    ASSERT_FALSE(regex.ok()) << pattern;
    EXPECT_EQ(regex.status().code(), Code::kDataCorrupt) << regex.status().to_string();
  }
}

TEST(TokenizerRegexTest, LongRunsOfSpaceAreNoRunaway) {
  // The part for line ends goes back over the whole run before the next part takes it.
  const auto regex = tokenizer::Regex::compile("\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+");
  ASSERT_TRUE(regex.ok());
  constexpr size_t kSpaces = 3'000'000;
  std::vector<size_t> ends;
  const Status status = regex->for_each_match(std::string(kSpaces, ' ') + "x",
                                              [&](size_t, size_t end) { ends.push_back(end); });
  EXPECT_TRUE(status.ok()) << status.to_string();
  EXPECT_EQ(ends, (std::vector<size_t>{kSpaces - 1, kSpaces}));
}

TEST(TokenizerRegexTest, RunawayExpressionsStop) {
  const auto regex = tokenizer::Regex::compile("(a+a+)+[bd]");
  ASSERT_TRUE(regex.ok());
  const Status status = regex->for_each_match(std::string(64, 'a') + "c", [](size_t, size_t) {});
  EXPECT_EQ(status.code(), Code::kResourceExhausted) << status.to_string();
}

}  // namespace
}  // namespace chimera
