// Single components of tokenizer.json that no reference output covers, each against what its
// definition gives for short texts.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "text/tokenizer/testing.h"
#include "text/tokenizer/tokenizer.h"

namespace chimera {
namespace {

using testing::ElementsAre;

constexpr const char* kMark = "\xE2\x96\x81";

// The pieces that `pre_tokenizer` makes of `text`, read from tokens that are looked up whole
// (ignore_merges): `expected` names all that may occur.
std::vector<std::string> pieces(const std::string& normalizer, const std::string& pre_tokenizer,
                                std::string_view text, const std::vector<std::string>& expected,
                                bool match_added = false) {
  Sketch s;
  s.normalizer = normalizer;
  s.pre_tokenizer = pre_tokenizer;
  s.model_extra = R"("ignore_merges":true,)";
  if (match_added) s.added_tokens = "[" + added(999, "<m>") + "]";
  std::string json = s.json();
  std::string extra;
  int id = 100;
  for (const std::string& piece : expected) {
    const std::string entry = fmt::format("\"{}\":", piece);
    if (piece.size() < 2 || piece == kMark || piece == "<m>" ||
        extra.find(entry) != std::string::npos)
      continue;
    extra += fmt::format(",{}{}", entry, id++);
  }
  json.insert(json.find("\"ab\":96") + 7, extra);
  const auto parsed = Tokenizer::parse(json, "pieces");
  EXPECT_TRUE(parsed.ok()) << parsed.status().to_string();
  return parsed.ok() ? tokens(**parsed, text) : std::vector<std::string>();
}

void expect_pieces(const std::string& pre_tokenizer, std::string_view text,
                   const std::vector<std::string>& expected) {
  EXPECT_EQ(pieces("null", pre_tokenizer, text, expected), expected) << pre_tokenizer;
}

TEST(TokenizerPreTokenizers, CutAsTheyAreDefined) {
  expect_pieces(R"({"type":"FixedLength","length":2})",
                "abc\xC3\xA9"
                "e",
                {"ab", "c\xC3\xA9", "e"});
  expect_pieces(R"({"type":"FixedLength"})", "abcdefg", {"abcde", "fg"});
  expect_pieces(R"({"type":"Whitespace"})", "Hey, man-x  \n!?",
                {"Hey", ",", "man", "-", "x", "!?"});
  expect_pieces(R"({"type":"Whitespace"})",
                "a\xE2\x80\x8D"
                "b",
                {"a\xE2\x80\x8D"
                 "b"});
  expect_pieces(R"({"type":"WhitespaceSplit"})", "Hey, man\t!", {"Hey,", "man", "!"});
  expect_pieces(R"({"type":"Digits","individual_digits":true})",
                "ab12\xC2\xBD"
                "c",
                {"ab", "1", "2", "\xC2\xBD", "c"});
  expect_pieces(R"({"type":"Digits"})", "ab12c", {"ab", "12", "c"});
  expect_pieces(R"({"type":"Punctuation"})", "ab,$cd", {"ab", ",", "$", "cd"});
  expect_pieces(R"({"type":"Punctuation","behavior":"Contiguous"})", "ab,$cd", {"ab", ",$", "cd"});
  expect_pieces(R"({"type":"CharDelimiterSplit","delimiter":"-"})", "-ab--cd-", {"ab", "cd"});
  expect_pieces(R"({"type":"Split","pattern":{"Regex":"\\d+"},"behavior":"Removed","invert":true})",
                "ab12cd345", {"12", "345"});
}

std::string metaspace(const std::string& options) {
  return fmt::format(R"({{"type":"Metaspace","replacement":"{}"{}}})", kMark, options);
}

TEST(TokenizerPreTokenizers, MetaspaceInAllItsSpellings) {
  const std::string m = kMark;
  expect_pieces(metaspace(""), "ab cd", {m + "ab", m + "cd"});
  expect_pieces(metaspace(""), " ab  cd", {m + "ab", m, m + "cd"});
  expect_pieces(metaspace(R"(,"prepend_scheme":"never")"), "ab cd", {"ab", m + "cd"});
  expect_pieces(metaspace(R"(,"add_prefix_space":false)"), "ab cd", {"ab", m + "cd"});
  expect_pieces(metaspace(R"(,"add_prefix_space":true,"str_rep":"_")"), "ab", {m + "ab"});
  expect_pieces(metaspace(R"(,"split":false)"), "ab cd", {m + "ab" + m + "cd"});
}

TEST(TokenizerPreTokenizers, MetaspaceFirstMeansTheBeginningOfTheText) {
  const std::string m = kMark;
  const std::string first = metaspace(R"(,"prepend_scheme":"first")");
  const auto run = [](const std::string& normalizer, const std::string& steps,
                      std::string_view text, const std::vector<std::string>& expected) {
    EXPECT_EQ(pieces(normalizer, steps, text, expected, true), expected) << text;
  };
  run("null", first, "ab<m>cd", {m + "ab", "<m>", "cd"});
  run("null", first, "<m>cd", {"<m>", "cd"});
  const std::string after_split = fmt::format(
      R"({{"type":"Sequence","pretokenizers":[{{"type":"WhitespaceSplit"}},{}]}})", first);
  run("null", after_split, "ab cd", {m + "ab", "cd"});
  run("null", after_split, " ab cd", {"ab", "cd"});  // "ab" is not where the text begins
  run(R"({"type":"Strip","strip_left":true,"strip_right":true})", first, "ab ", {m + "ab"});
  run(R"({"type":"Strip","strip_left":true,"strip_right":true})", first, " ab", {"ab"});
}

std::string normalized(const std::string& normalizer, std::string_view text) {
  Sketch s;
  s.normalizer = normalizer;
  s.model_extra = R"("byte_fallback":true,)";
  std::string json = s.json();
  std::string bytes;
  for (int b = 0; b < 256; ++b) bytes += fmt::format(",\"<0x{:02X}>\":{}", b, 200 + b);
  json.insert(json.find("\"ab\":96") + 7, bytes);
  json.replace(json.find(R"({"type":"Fuse"})"), 15, R"({"type":"ByteFallback"})");
  const auto parsed = Tokenizer::parse(json, "normalized");
  EXPECT_TRUE(parsed.ok()) << parsed.status().to_string();
  const auto ids = (*parsed)->encode(text, {});
  EXPECT_TRUE(ids.ok()) << ids.status().to_string();
  return *(*parsed)->decode(*ids, false);
}

TEST(TokenizerNormalizers, RewriteAsTheyAreDefined) {
  EXPECT_EQ(normalized(R"({"type":"Nmt"})",
                       "a\x01\tb\xE2\x80\x8B\xEF\xBB\xBF\x7F"
                       "c\xC2\x8F\n\x0B"),
            "a b  c ");
  EXPECT_EQ(normalized(R"({"type":"NFKC"})", "\xEF\xAC\x81\xE2\x91\xA0\xEF\xBD\xB6\xEF\xBE\x9E"),
            "fi1\xE3\x82\xAC");
  EXPECT_EQ(normalized(R"({"type":"NFD"})", "\xC3\xA9\xEA\xB0\x80"),
            "e\xCC\x81\xE1\x84\x80\xE1\x85\xA1");
  EXPECT_EQ(
      normalized(R"({"type":"Sequence","normalizers":[{"type":"NFD"},{"type":"StripAccents"},)"
                 R"({"type":"Lowercase"}]})",
                 "\xC3\x89T\xC3\x89 \xC4\xB0"),
      "ete i");
  EXPECT_EQ(
      normalized(R"({"type":"Replace","pattern":{"Regex":" {2,}"},"content":"_"})", "a   b c"),
      "a_b c");
  EXPECT_EQ(normalized(R"({"type":"Precompiled","precompiled_charsmap":null})", "a"), "a");
}

TEST(TokenizerNormalizers, AMillionMarksAreSortedNotSwapped) {
  // Marks above (class 230) and below (220) in turn: sorting by neighbours would be quadratic.
  constexpr size_t kPairs = 250'000;
  std::string text = "a";
  std::string sorted = "\xE1\xBA\xA1";  // the first mark below composes with 'a'
  for (size_t i = 0; i < kPairs; ++i) text += "\xCC\x8E\xCC\xA3";
  for (size_t i = 1; i < kPairs; ++i) sorted += "\xCC\xA3";
  for (size_t i = 0; i < kPairs; ++i) sorted += "\xCC\x8E";
  EXPECT_EQ(normalized(R"({"type":"NFC"})", text), sorted);
}

TEST(TokenizerAddedTokens, StrippedSpaceIsLookedAtOnce) {
  // Every space matches and strips all others; going over them for each would be quadratic.
  Sketch s;
  s.added_tokens = "[" + added(97, "  ", R"(,"lstrip":true,"rstrip":true)") + "]";
  const auto tokenizer = s.build();
  const auto ids = tokenizer->encode(std::string(2'000'000, ' ') + "a", {});
  ASSERT_TRUE(ids.ok()) << ids.status().to_string();
  EXPECT_EQ(ids->size(), 1'000'001u);
}

TEST(TokenizerModels, BpeWithPrefixAndSuffix) {
  Sketch s;
  s.pre_tokenizer = R"({"type":"WhitespaceSplit"})";
  s.decoder = R"({"type":"BPEDecoder","suffix":"</w>"})";
  s.model_extra = R"("end_of_word_suffix":"</w>",)";
  s.merges = R"(["a b", "ab c</w>"])";
  std::string json = s.json();
  json.insert(json.find("\"ab\":96") + 7, R"(,"b</w>":97,"c</w>":98,"abc</w>":99)");
  const auto tokenizer = *Tokenizer::parse(json, "suffix");
  const auto ids = *tokenizer->encode("abc aab", {});
  EXPECT_THAT(ids, ElementsAre(99, 'a' - 32, 'a' - 32, 97));
  EXPECT_EQ(*tokenizer->decode(ids, false), "abc aab");
  StreamDecoder stream(tokenizer, false);
  EXPECT_EQ(stream.push(99), "");  // the last token ends in no space, and this could be it
  EXPECT_EQ(stream.push('a' - 32), "abc ");
  EXPECT_EQ(stream.flush(), "a");
}

TEST(TokenizerModels, AMissingUnknownTokenIsNamedWhenItIsNeeded) {
  Sketch s;
  s.model_extra = R"("unk_token":"<no>",)";
  const auto tokenizer = s.build();
  EXPECT_TRUE(tokenizer->encode("ab", {}).ok());
  const auto ids = tokenizer->encode("a\xC3\xA9", {});
  ASSERT_FALSE(ids.ok());
  EXPECT_EQ(ids.status().code(), Code::kInvalidArgument);
  EXPECT_THAT(ids.status().message(), testing::HasSubstr("no unknown token"));
}

TEST(TokenizerModels, MergesMayCarryTheFirstLineOfTheirFile) {
  Sketch s;
  s.merges = R"(["#version: 0.2 - Trained by x", "a b"])";
  EXPECT_THAT(tokens(*s.build(), "abb"), ElementsAre("ab", "b"));
}

// A T5-like tokenizer: Unigram over Metaspace words.
TEST(TokenizerModels, UnigramFromTextToText) {
  const std::string json = fmt::format(
      R"({{"version":"1.0","normalizer":{{"type":"Replace","pattern":{{"Regex":" {{2,}}"}},)"
      R"("content":" "}},"pre_tokenizer":{{"type":"Metaspace","replacement":"{0}"}},)"
      R"("decoder":{{"type":"Metaspace","replacement":"{0}"}},)"
      R"("added_tokens":[{{"id":2,"content":"</s>","special":true,"normalized":false}},)"
      R"({{"id":9,"content":"<x>","special":true,"normalized":false}}],)"
      R"("post_processor":{{"type":"TemplateProcessing","single":[{{"Sequence":{{"id":"A"}}}},)"
      R"({{"SpecialToken":{{"id":"</s>"}}}}],"special_tokens":{{"</s>":{{"ids":[2]}}}}}},)"
      R"("model":{{"type":"Unigram","unk_id":0,"vocab":[["<unk>",0],["{0}",-2.5],["</s>",0],)"
      R"(["{0}the",-1],["{0}cat",-3],["s",-2],["{0}c",-4],["at",-4.5],["t",-5]]}}}})",
      kMark);
  const auto parsed = Tokenizer::parse(json, "t5");
  ASSERT_TRUE(parsed.ok()) << parsed.status().to_string();
  const Tokenizer& t5 = **parsed;
  EXPECT_EQ(*t5.encode("the  cats", {.add_special_tokens = true}),
            (std::vector<int32_t>{3, 4, 5, 2}));
  EXPECT_EQ(*t5.encode("zz", {}), (std::vector<int32_t>{1, 0}));
  EXPECT_EQ(*t5.encode("cat<x>cat", {.match_special = true}), (std::vector<int32_t>{4, 9, 4}));
  EXPECT_EQ(*t5.decode(std::vector<int32_t>{3, 4, 5, 2}, true), "the cats");
  EXPECT_EQ(*t5.decode(std::vector<int32_t>{3, 4, 9, 1, 1}, false), "the cat<x>  ");
  EXPECT_EQ(t5.token_bytes(4), " cat");
}

TEST(TokenizerDecoding, SkipsWhatReadsAsASpecialToken) {
  // The normalizer makes another text of the token 98, which therefore is not recognized.
  Sketch s;
  s.normalizer = R"({"type":"Prepend","prepend":"_"})";
  s.added_tokens = R"([{"id":97,"content":"<a>","special":true,"normalized":false},)"
                   R"({"id":98,"content":"<b>","special":true,"normalized":true}])";
  const auto tokenizer = s.build();
  EXPECT_EQ(*tokenizer->decode(std::vector<int32_t>{97, 98}, false), "<a>_<b>");
  EXPECT_EQ(*tokenizer->decode(std::vector<int32_t>{97, 98}, true), "_<b>");
}

}  // namespace
}  // namespace chimera
