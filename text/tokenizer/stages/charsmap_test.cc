// The precompiled_charsmap of SentencePiece, on tables that a small builder here writes.
#include "text/tokenizer/stages/charsmap.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sodium.h>

#include <algorithm>
#include <map>
#include <set>

namespace chimera::tokenizer {
namespace {

using testing::HasSubstr;

constexpr size_t kLimit = 1 << 20;
using Rules = std::map<std::string, std::string>;

// Writes a double array the obvious way: every node takes the first base at which all its
// children (label 0 for the value) are free.
class Builder {
 public:
  explicit Builder(const Rules& rules) {
    std::map<std::string, uint32_t> keys;
    for (const auto& [key, by] : rules) {
      keys[key] = static_cast<uint32_t>(replacements_.size());
      replacements_ += by + '\0';
    }
    units_.assign(1 << 12, 0);
    used_.assign(units_.size(), false);
    used_[0] = true;
    place(0, keys, 0);
  }

  std::string bytes() const {
    std::string out = u32(static_cast<uint32_t>(units_.size() * 4));
    for (const uint32_t unit : units_) out += u32(unit);
    return out + replacements_;
  }
  static std::string u32(uint32_t v) {
    std::string out;
    for (int i = 0; i < 4; ++i) out += static_cast<char>(v >> (8 * i));
    return out;
  }
  static std::string base64(const std::string& bytes) {
    std::string out(sodium_base64_encoded_len(bytes.size(), sodium_base64_VARIANT_ORIGINAL), '\0');
    sodium_bin2base64(out.data(), out.size(), reinterpret_cast<const unsigned char*>(bytes.data()),
                      bytes.size(), sodium_base64_VARIANT_ORIGINAL);
    out.pop_back();  // its NUL
    return out;
  }

 private:
  void place(size_t node, const std::map<std::string, uint32_t>& keys, size_t depth) {
    std::map<uint8_t, std::map<std::string, uint32_t>> children;
    for (const auto& [key, value] : keys) {
      const uint8_t label = depth < key.size() ? static_cast<uint8_t>(key[depth]) : uint8_t{0};
      children[label][key] = value;
    }
    // A child's label tells its parent only if no two parents share a base.
    size_t base = 1;
    while (bases_.contains(base) ||
           std::any_of(children.begin(), children.end(),
                       [&](const auto& child) { return used_[base ^ child.first]; })) {
      ++base;
    }
    bases_.insert(base);
    units_[node] |= static_cast<uint32_t>(node ^ base) << 10;
    for (const auto& [label, below] : children) used_[base ^ label] = true;
    for (const auto& [label, below] : children) {
      if (label == 0) {
        units_[node] |= 0x100;
        units_[base] = below.begin()->second | 0x80000000u;
      } else {
        units_[base ^ label] = label;
        place(base ^ label, below, depth + 1);
      }
    }
  }

  std::vector<uint32_t> units_;
  std::vector<bool> used_;
  std::set<size_t> bases_;
  std::string replacements_;
};

std::string rewritten(const Rules& rules, std::string text) {
  const auto map = Charsmap::from_base64(Builder::base64(Builder(rules).bytes()));
  EXPECT_TRUE(map.ok()) << map.status().to_string();
  if (!map.ok()) return {};
  const Status status = map->apply(text, kLimit);
  EXPECT_TRUE(status.ok()) << status.to_string();
  return text;
}

TEST(CharsmapTest, ReplacesCharacters) {
  const Rules rules = {
      {"\xC2\xA0", " "}, {"\xEF\xAC\x81", "fi"}, {"\xE2\x91\xA0", "1"}, {"\x01", ""}, {"\t", " "}};
  EXPECT_EQ(rewritten(rules, ""), "");
  EXPECT_EQ(rewritten(rules, "plain"), "plain");
  EXPECT_EQ(rewritten(rules, "a\xC2\xA0\xEF\xAC\x81n\x01\t\xE2\x91\xA0"), "a fin 1");
  EXPECT_EQ(rewritten(rules, "\xE2\x91\xA1\xEF\xAC\x82"), "\xE2\x91\xA1\xEF\xAC\x82");
}

TEST(CharsmapTest, ShortClustersAreLookedUpWhole) {
  const Rules rules = {{"e\xCC\x81", "\xC3\xA9"}, {"a", "A"}};
  EXPECT_EQ(rewritten(rules, "e\xCC\x81"), "\xC3\xA9");
  // The key "a" begins the cluster, and the accent goes with it.
  EXPECT_EQ(rewritten(rules, "xa\xCC\x81y"), "xAy");
  // Six bytes: character by character.
  EXPECT_EQ(rewritten(rules, "a\xCC\x81\xCC\x82\xCC\x83"), "A\xCC\x81\xCC\x82\xCC\x83");
}

TEST(CharsmapTest, TheShortestKeyDecides) {
  EXPECT_EQ(rewritten({{"\xEF", "x"}, {"\xEF\xAC\x81", "fi"}}, "\xEF\xAC\x81"), "x");
}

TEST(CharsmapTest, BadTablesAreRefused) {
  const auto message = [](const std::string& base64) {
    const auto map = Charsmap::from_base64(base64);
    EXPECT_FALSE(map.ok());
    EXPECT_EQ(map.status().code(), Code::kDataCorrupt);
    return map.status().message();
  };
  EXPECT_THAT(message("!!!"), HasSubstr("not base64"));
  EXPECT_THAT(message(""), HasSubstr("0 bytes"));
  EXPECT_THAT(message(Builder::base64(Builder::u32(8) + "abc")), HasSubstr("announces a trie"));
  EXPECT_THAT(message(Builder::base64(Builder::u32(0xFFFFFFFF))), HasSubstr("announces a trie"));
  EXPECT_THAT(message(Builder::base64(Builder::u32(0) + "\xFF")), HasSubstr("not UTF-8 at byte 0"));
}

TEST(CharsmapTest, TablesThatLeadOutsideFailAtTheirText) {
  // One unit whose offset is far away.
  const auto outside =
      Charsmap::from_base64(Builder::base64(Builder::u32(4) + Builder::u32(0xFFFFFC00) + "x"));
  ASSERT_TRUE(outside.ok());
  std::string text = "a";
  EXPECT_EQ(outside->apply(text, kLimit).code(), Code::kDataCorrupt);
  // An offset into the middle of a character.
  std::string bytes = Builder(Rules{{"a", "\xC3\xA9"}}).bytes();
  const std::string value = Builder::u32(0x80000000u);
  bytes.replace(bytes.find(value), 4, Builder::u32(0x80000001u));
  const auto middle = Charsmap::from_base64(Builder::base64(bytes));
  ASSERT_TRUE(middle.ok());
  EXPECT_EQ(middle->apply(text, kLimit).code(), Code::kDataCorrupt);
}

TEST(CharsmapTest, GrowthIsBounded) {
  const auto map =
      Charsmap::from_base64(Builder::base64(Builder(Rules{{"a", std::string(1000, 'b')}}).bytes()));
  ASSERT_TRUE(map.ok());
  std::string text(2000, 'a');
  EXPECT_EQ(map->apply(text, kLimit).code(), Code::kResourceExhausted);
}

}  // namespace
}  // namespace chimera::tokenizer
