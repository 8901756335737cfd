// Every reference output of ../shared/golden/open/tokenizers, equal to the last byte.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/io/env.h"
#include "base/json/testing.h"
#include "base/json/writer.h"
#include "base/utf8.h"
#include "text/tokenizer/tokenizer.h"

namespace chimera {
namespace {

std::filesystem::path golden_dir() {
  return std::filesystem::path(CHIMERA_SOURCE_DIR) / "../shared/golden/open/tokenizers";
}

class TokenizerGolden : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const auto dir = golden_dir() / GetParam();
    if (!std::filesystem::exists(dir)) GTEST_SKIP() << "no golden material at " << dir;
    auto loaded = Tokenizer::load((dir / "tokenizer.json").string());
    ASSERT_TRUE(loaded.ok()) << loaded.status().to_string();
    tokenizer_ = *loaded;
    golden_ = json_of(*read_file(Env::system(), (dir / "golden.json").string(), 64 << 20));
  }

  // Pieces of the stream, each checked to be whole characters, joined.
  std::string stream(const std::vector<int32_t>& ids, bool skip_special) {
    StreamDecoder decoder(tokenizer_, skip_special);
    std::string text;
    for (const int32_t id : ids) text += whole_characters(decoder.push(id));
    return text + whole_characters(decoder.flush());
  }

  static std::string whole_characters(std::string piece) {
    EXPECT_EQ(find_invalid_utf8(piece), std::nullopt) << "a piece splits a character";
    return piece;
  }

  std::shared_ptr<const Tokenizer> tokenizer_;
  Json golden_;
};

TEST_P(TokenizerGolden, VocabularySize) {
  EXPECT_EQ(tokenizer_->vocab_size(), golden_.value("vocab_size_with_added", int64_t{0}));
}

TEST_P(TokenizerGolden, CasesEncodeAndDecode) {
  ASSERT_FALSE(golden_["cases"].empty());
  for (const Json& c : golden_["cases"]) {
    SCOPED_TRACE("case " + write_json(c["id"]) + " (" + c.value("cat", "") + ")");
    const auto text = c.value("text", "");
    const auto ids = ids_of(c["ids"]);
    const auto ids_special = c.contains("ids_special") ? ids_of(c["ids_special"]) : ids;
    const auto plain = tokenizer_->encode(text, {.match_special = true});
    ASSERT_TRUE(plain.ok()) << plain.status().to_string();
    EXPECT_EQ(*plain, ids);
    const auto special =
        tokenizer_->encode(text, {.add_special_tokens = true, .match_special = true});
    ASSERT_TRUE(special.ok()) << special.status().to_string();
    EXPECT_EQ(*special, ids_special);
    const auto decoded = c.value("decoded", "");
    EXPECT_EQ(*tokenizer_->decode(ids, false), decoded);
    EXPECT_EQ(*tokenizer_->decode(ids_special, true), c.value("decoded_skip_special", decoded));
    EXPECT_EQ(stream(ids, false), decoded);
  }
}

TEST_P(TokenizerGolden, ArbitraryIdsDecode) {
  ASSERT_FALSE(golden_["decode"].empty());
  for (const Json& c : golden_["decode"]) {
    const auto ids = ids_of(c["ids"]);
    const bool skip_special = c.value("skip_special", false);
    SCOPED_TRACE(write_json(c));
    const auto decoded = tokenizer_->decode(ids, skip_special);
    ASSERT_TRUE(decoded.ok()) << decoded.status().to_string();
    EXPECT_EQ(*decoded, c.value("text", ""));
    EXPECT_EQ(stream(ids, skip_special), *decoded);
  }
}

TEST_P(TokenizerGolden, EveryPrefixStreams) {
  ASSERT_FALSE(golden_["prefix"].empty());
  for (const Json& p : golden_["prefix"]) {
    const Json& c = golden_["cases"][p["case"].natural().value()];
    ASSERT_EQ(c["id"], p["case"]);
    SCOPED_TRACE("prefixes of case " + write_json(p["case"]));
    const auto ids = ids_of(c["ids"]);
    const auto texts = texts_of(p["texts"]);
    ASSERT_EQ(texts.size(), ids.size());
    for (size_t n = 1; n <= ids.size(); ++n) {
      const std::vector<int32_t> prefix(ids.begin(), ids.begin() + static_cast<ptrdiff_t>(n));
      EXPECT_EQ(*tokenizer_->decode(prefix, false), texts[n - 1]) << "first " << n << " ids";
      EXPECT_EQ(stream(prefix, false), texts[n - 1]) << "first " << n << " ids";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Open, TokenizerGolden,
                         testing::Values("dolma2", "olmo_gptneox", "tiny312", "mixtral_v1"),
                         [](const auto& name) { return std::string(name.param); });

}  // namespace
}  // namespace chimera
