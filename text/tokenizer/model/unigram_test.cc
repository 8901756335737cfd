// Unigram against the definition: every way to write a short piece as tokens, and the best of them.
#include "text/tokenizer/model/unigram.h"

#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <random>
#include <string>

#include "text/unicode.h"

namespace chimera::tokenizer {
namespace {

using Pieces = std::vector<std::pair<std::string, double>>;

struct Model {
  Model(const Pieces& pieces, std::optional<int> unknown, bool byte_fallback = false) {
    Json vocab = Json::array();
    for (const auto& [piece, score] : pieces) vocab.push_back(Json::array({piece, score}));
    Json json = {{"type", "Unigram"}, {"byte_fallback", byte_fallback}, {"vocab", vocab}};
    if (unknown) json["unk_id"] = *unknown;
    EXPECT_TRUE(vocabulary.add_listed_tokens(json["vocab"]).ok());
    auto made = Unigram::from_json(json, vocabulary);
    EXPECT_TRUE(made.ok()) << made.status().to_string();
    if (made.ok()) model = std::move(*made);
  }
  std::vector<int32_t> encode(std::string_view text, bool allow_special = true) const {
    std::vector<int32_t> ids;
    EXPECT_TRUE(model->encode(text, allow_special, ids));
    return ids;
  }

  Vocabulary vocabulary;
  std::unique_ptr<TokenModel> model;
};

TEST(UnigramTest, TakesTheBestSum) {
  const Model m({{"<unk>", 0.0},
                 {"a", 0.0},
                 {"b", 0.0},
                 {"c", 0.0},
                 {"d", 0.0},
                 {"cd", 1.0},
                 {"ab", 2.0},
                 {"abc", 5.0},
                 {"abcd", 10.0}},
                0);
  EXPECT_EQ(m.encode("abcdacdxx"), (std::vector<int32_t>{8, 1, 5, 0}));  // "xx" is fused
  EXPECT_EQ(m.encode("xa\xC3\xA9y"), (std::vector<int32_t>{0, 1, 0}));
  EXPECT_EQ(m.encode("abd"), (std::vector<int32_t>{6, 4}));
}

// Recursion over all splits of `text` from `pos` on: the best score and its tokens.
struct Naive {
  std::map<std::string, std::pair<int32_t, double>> tokens;
  double unknown_score;
  int32_t unknown;

  std::pair<double, std::vector<int32_t>> best(const std::string& text, size_t pos) const {
    if (pos == text.size()) return {0.0, {}};
    std::pair<double, std::vector<int32_t>> out = {-1e300, {}};
    for (size_t n = 1; pos + n <= text.size(); ++n) {
      const auto it = tokens.find(text.substr(pos, n));
      const bool known = it != tokens.end();
      if (!known && n > 1) continue;
      auto rest = best(text, pos + n);
      rest.first += known ? it->second.second : unknown_score;
      rest.second.insert(rest.second.begin(), known ? it->second.first : unknown);
      if (rest.first > out.first) out = rest;
    }
    return out;
  }
};

TEST(UnigramTest, MatchesAllSplitsOfShortPieces) {
  for (const uint32_t seed : {1u, 2u, 3u}) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    std::uniform_real_distribution<double> score(-12.0, -1.0);
    Pieces pieces = {{"<unk>", 0.0}};
    Naive naive{{}, 0.0, 0};
    double smallest = 0.0;
    while (pieces.size() < 60) {
      std::string token;
      for (size_t n = 1 + random() % 4; n > 0; --n)
        token += "abcd"[random() % 4];  // 'e' is unknown
      if (naive.tokens.contains(token)) continue;
      const double s = score(random);  // continuous: no two splits tie
      naive.tokens[token] = {static_cast<int32_t>(pieces.size()), s};
      pieces.emplace_back(token, s);
      smallest = std::min(smallest, s);
    }
    naive.unknown_score = smallest - 10.0;
    const Model m(pieces, 0);
    for (int i = 0; i < 200; ++i) {
      std::string text;
      for (size_t n = 1 + random() % 11; n > 0; --n) text += "aabbccdde"[random() % 9];
      std::vector<int32_t> expected;
      for (const int32_t id : naive.best(text, 0).second) {
        const bool fused = id == 0 && !expected.empty() && expected.back() == 0;
        if (!fused) expected.push_back(id);
      }
      EXPECT_EQ(m.encode(text), expected) << text;
      EXPECT_EQ(m.encode(text), expected) << text << " from the cache";
    }
  }
}

TEST(UnigramTest, AtEqualScoresTheEarlierBeginningStays) {
  const Model m({{"<unk>", 0.0}, {"a", -1.0}, {"ab", -2.0}, {"b", -1.0}, {"aa", -2.0}}, 0);
  EXPECT_EQ(m.encode("ab"), (std::vector<int32_t>{2}));
  EXPECT_EQ(m.encode("aaa"), (std::vector<int32_t>{1, 4}));
}

TEST(UnigramTest, UnknownRunsBecomeBytesWhereAllAreThere) {
  Pieces pieces = {
      {"<unk>", 0.0}, {"a", -1.0}, {"<0xC3>", -9.0}, {"<0xA9>", -9.0}, {"<0x78>", -9.0}};
  const Model bytes(pieces, 0, true);
  EXPECT_EQ(bytes.encode("a\xC3\xA9xa"), (std::vector<int32_t>{1, 2, 3, 4, 1}));
  EXPECT_EQ(bytes.encode("axya"), (std::vector<int32_t>{1, 0, 1}));  // no byte for 'y' in the run
  const Model plain(pieces, 0);
  EXPECT_EQ(plain.encode("a\xC3\xA9xa"), (std::vector<int32_t>{1, 0, 1}));
}

TEST(UnigramTest, ARepeatedTokenMeansTheLastOne) {
  const Model m({{"<unk>", 0.0}, {"a", -1.0}, {"b", -1.0}, {"a", -3.0}, {"ab", -3.5}}, 0);
  EXPECT_EQ(m.encode("a"), (std::vector<int32_t>{3}));
  EXPECT_EQ(m.encode("ab"), (std::vector<int32_t>{4}));  // -3.5 against -4
  EXPECT_EQ(m.vocabulary.content(1), "a");
}

TEST(UnigramTest, SpecialTokensNeverResultUnlessAllowed) {
  Model m({{"<unk>", 0.0}, {"<", -1.0}, {"s", -1.0}, {">", -1.0}, {"<s>", 5.0}}, 0);
  ASSERT_TRUE(m.vocabulary.add_added_token("<s>", 4, /*special=*/true).ok());
  EXPECT_EQ(m.encode("<s>", false), (std::vector<int32_t>{1, 2, 3}));
  EXPECT_EQ(m.encode("<s>", true), (std::vector<int32_t>{4}));
}

TEST(UnigramTest, WithoutAnUnknownTokenUnknownTextIsAnError) {
  const Model m({{"a", -1.0}, {"b", -1.0}}, std::nullopt);
  EXPECT_EQ(m.encode("ab"), (std::vector<int32_t>{0, 1}));
  std::vector<int32_t> ids;
  EXPECT_FALSE(m.model->encode("axb", true, ids));
}

TEST(PrefixTrieTest, FindsEveryPrefix) {
  std::mt19937 random(5);
  std::map<std::string, int32_t> tokens;
  for (int i = 0; i < 500; ++i) {
    std::string token;
    for (size_t n = random() % 6; n > 0; --n) token += static_cast<char>(random() % 3 + 0xFE);
    tokens[token] = i;
  }
  PrefixTrie trie;
  trie.build({tokens.begin(), tokens.end()});
  for (int i = 0; i < 500; ++i) {
    std::string text;
    for (size_t n = random() % 9; n > 0; --n) text += static_cast<char>(random() % 3 + 0xFE);
    std::vector<std::pair<size_t, int32_t>> expected;
    for (size_t n = 1; n <= text.size(); ++n) {
      const auto it = tokens.find(text.substr(0, n));
      if (it != tokens.end()) expected.emplace_back(n, it->second);
    }
    std::vector<std::pair<size_t, int32_t>> found;
    trie.for_each_prefix(text, [&](size_t n, int32_t value) { found.emplace_back(n, value); });
    EXPECT_EQ(found, expected);
  }
}

}  // namespace
}  // namespace chimera::tokenizer
