// Merging against a naive reference, its cost on long words, and the cuts and the cache that must
// not change results.
#include "text/tokenizer/model/bpe.h"

#include <gtest/gtest.h>

#include <array>
#include <map>
#include <random>
#include <thread>

namespace chimera::tokenizer {
namespace {

/// What the parser makes of it: numbers from a file are unsigned, those of a literal are not.

// A vocabulary of the letters a..f and '_' with random merges of it. "Merges" whose sides meet
// only inside words leave places where the model may cut.
struct RandomBpe {
  explicit RandomBpe(uint32_t seed, size_t merge_count) {
    std::mt19937 random(seed);
    std::vector<std::string> tokens = {"a", "b", "c", "d", "e", "f", "_"};
    std::map<std::string, int32_t> ids;
    for (const std::string& token : tokens) ids.emplace(token, static_cast<int32_t>(ids.size()));
    Json merges = Json::array();
    while (merges.size() < merge_count) {
      const std::string& left = tokens[random() % tokens.size()];
      const std::string& right = tokens[random() % tokens.size()];
      // '_' only begins tokens, as SentencePiece's space mark does.
      if (right.find('_') != std::string::npos || left.size() + right.size() > 8) continue;
      const std::string joined = left + right;
      if (ids.contains(joined)) continue;
      ids.emplace(joined, static_cast<int32_t>(ids.size()));
      merges.push_back(Json::array({left, right}));
      order.emplace_back(left, right);
      tokens.push_back(joined);
    }
    json = {{"type", "BPE"}, {"vocab", ids}, {"merges", merges}};
  }

  std::unique_ptr<Bpe> build(Vocabulary& vocabulary, PieceForm form) const {
    EXPECT_TRUE(vocabulary.add_model_tokens(json["vocab"]).ok());
    auto model = Bpe::from_json(json, form, vocabulary);
    EXPECT_TRUE(model.ok()) << model.status().to_string();
    return std::unique_ptr<Bpe>(static_cast<Bpe*>(std::move(model).value().release()));
  }

  // The definition: the earliest merge that applies anywhere, at its leftmost place, until none.
  std::vector<int32_t> naive(const std::string& word) const {
    std::vector<std::string> symbols;
    for (const char c : word) symbols.emplace_back(1, c);
    for (bool merged = true; merged;) {
      merged = false;
      for (const auto& [left, right] : order) {
        for (size_t i = 0; i + 1 < symbols.size() && !merged; ++i) {
          if (symbols[i] != left || symbols[i + 1] != right) continue;
          symbols[i] += right;
          symbols.erase(symbols.begin() + static_cast<ptrdiff_t>(i) + 1);
          merged = true;
        }
        if (merged) break;
      }
    }
    std::vector<int32_t> ids;
    ids.reserve(symbols.size());
    for (const std::string& s : symbols) ids.push_back(json["vocab"].value(s, 0));
    return ids;
  }

  Json json;
  std::vector<std::pair<std::string, std::string>> order;
};

std::string random_text(std::mt19937& random, size_t size) {
  std::string text;
  while (text.size() < size) text += "abcdef__"[random() % 8];
  return text;
}

TEST(BpeTest, MatchesTheNaiveDefinition) {
  for (const uint32_t seed : {1u, 2u, 3u}) {
    SCOPED_TRACE(seed);
    const RandomBpe source(seed, 60);
    for (const PieceForm form : {PieceForm::kBytes, PieceForm::kCharacters}) {
      Vocabulary vocabulary;
      const auto bpe = source.build(vocabulary, form);
      std::mt19937 random(seed + 100);
      for (int i = 0; i < 150; ++i) {
        const std::string text = random_text(random, 1 + random() % 60);
        const std::vector<int32_t> expected = source.naive(text);
        std::vector<int32_t> uncached;
        ASSERT_TRUE(bpe->encode_uncached(text, true, uncached));
        EXPECT_EQ(uncached, expected) << text;
        for (int again = 0; again < 2; ++again) {  // the second time from the cache
          std::vector<int32_t> ids;
          ASSERT_TRUE(bpe->encode(text, true, ids));
          EXPECT_EQ(ids, expected) << text;
        }
      }
    }
  }
}

TEST(BpeTest, CostOfALongWordIsNotQuadratic) {
  const RandomBpe source(7, 60);
  Vocabulary vocabulary;
  const auto bpe = source.build(vocabulary, PieceForm::kBytes);
  std::mt19937 random(7);
  const auto handled = [&](size_t size) {
    std::vector<int32_t> ids;
    size_t entries = 0;
    EXPECT_TRUE(bpe->encode_uncached(random_text(random, size), true, ids, &entries));
    return entries;
  };
  const size_t small = handled(size_t{1} << 12);
  const size_t large = handled(size_t{1} << 20);
  ASSERT_GT(small, 0u);
  // 256 times the text; each symbol starts at most one candidate and each merge at most two.
  EXPECT_LT(large, small * 300);
  EXPECT_LE(large, 3 * (size_t{1} << 20));
}

TEST(BpeTest, SpecialTokensNeverResultUnlessAllowed) {
  const Json json = {{"type", "BPE"},
                     {"ignore_merges", true},
                     {"vocab", {{"<", 0}, {"s", 1}, {">", 2}, {"<s", 3}, {"<s>", 4}, {"x", 5}}},
                     {"merges", Json::array({"< s", "<s >"})}};
  Vocabulary vocabulary;
  ASSERT_TRUE(vocabulary.add_model_tokens(json["vocab"]).ok());
  ASSERT_TRUE(vocabulary.add_added_token("<s>", 4, /*special=*/true).ok());
  for (const PieceForm form : {PieceForm::kBytes, PieceForm::kCharacters}) {
    auto model = Bpe::from_json(json, form, vocabulary);
    ASSERT_TRUE(model.ok()) << model.status().to_string();
    for (int again = 0; again < 2; ++again) {
      std::vector<int32_t> ids;
      ASSERT_TRUE((*model)->encode("<s>", /*allow_special=*/false, ids));
      EXPECT_EQ(ids, (std::vector<int32_t>{3, 2}));  // by whole-piece lookup it would be 4
      ids.clear();
      ASSERT_TRUE((*model)->encode("x<s>", /*allow_special=*/false, ids));
      EXPECT_EQ(ids, (std::vector<int32_t>{5, 3, 2}));  // by merging as well
      ids.clear();
      ASSERT_TRUE((*model)->encode("x<s>", /*allow_special=*/true, ids));
      EXPECT_EQ(ids, (std::vector<int32_t>{5, 4}));
    }
  }
}

TEST(BpeTest, UnknownCharactersFallBackToBytesOrTheUnknownToken) {
  Json json = {{"type", "BPE"},
               {"unk_token", "<unk>"},
               {"fuse_unk", true},
               {"vocab", {{"<unk>", 0}, {"a", 1}}},
               {"merges", Json::array()}};
  const auto encode = [&json](std::string_view text) {
    Vocabulary vocabulary;
    EXPECT_TRUE(vocabulary.add_model_tokens(json["vocab"]).ok());
    auto model = Bpe::from_json(json, PieceForm::kCharacters, vocabulary);
    EXPECT_TRUE(model.ok()) << model.status().to_string();
    std::vector<int32_t> ids;
    EXPECT_TRUE((*model)->encode(text, true, ids));
    return ids;
  };
  EXPECT_EQ(encode("axya"), (std::vector<int32_t>{1, 0, 1}));
  json["fuse_unk"] = false;
  EXPECT_EQ(encode("axya"), (std::vector<int32_t>{1, 0, 0, 1}));
  json["byte_fallback"] = true;
  json["vocab"]["<0xC3>"] = 2;
  json["vocab"]["<0xA9>"] = 3;
  EXPECT_EQ(encode("a\xC3\xA9x"), (std::vector<int32_t>{1, 2, 3, 0}));
  json.erase("unk_token");
  EXPECT_EQ(encode("axa"), (std::vector<int32_t>{1, 1}));
}

TEST(BpeTest, ManyThreadsShareTheCache) {
  const RandomBpe source(11, 60);
  Vocabulary vocabulary;
  const auto bpe = source.build(vocabulary, PieceForm::kBytes);
  std::mt19937 random(11);
  std::vector<std::string> words;
  words.reserve(400);
  for (int i = 0; i < 400; ++i) words.push_back(random_text(random, 1 + random() % 12));
  std::vector<std::vector<int32_t>> expected;
  expected.reserve(words.size());
  for (const std::string& word : words) expected.push_back(source.naive(word));
  std::array<size_t, 4> wrong{};
  std::vector<std::thread> threads;
  for (size_t t = 0; t < wrong.size(); ++t) {
    threads.emplace_back([&, t] {
      for (size_t i = 0; i < 8 * words.size(); ++i) {
        const size_t k = (i * (2 * t + 1)) % words.size();
        std::vector<int32_t> ids;
        if (!bpe->encode(words[k], true, ids) || ids != expected[k]) ++wrong[t];
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const size_t count : wrong) EXPECT_EQ(count, 0u);
}

}  // namespace
}  // namespace chimera::tokenizer
