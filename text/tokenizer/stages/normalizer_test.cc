// Normal forms and case by the versions of Unicode that the reference library has.
#include "text/tokenizer/stages/normalizer.h"

#include <gtest/gtest.h>

#include "base/json/json.h"
#include "text/unicode.h"

namespace chimera::tokenizer {
namespace {

std::string normalized(const char* type, uint32_t c) {
  const auto normalizer = Normalizer::from_json(Json{{"type", type}});
  EXPECT_TRUE(normalizer.ok()) << normalizer.status().to_string();
  std::string text;
  append_char(c, text);
  EXPECT_TRUE(normalizer->apply(text).ok());
  return text;
}

std::string character(uint32_t c) {
  std::string text;
  append_char(c, text);
  return text;
}

TEST(Normalizer, NormalFormsLeaveAloneWhatIsNewerThanTheReferences) {
  for (const uint32_t c :
       {0x32FFu, 0xA7F2u, 0xAB69u, 0x107A5u, 0x1E030u}) {  // 12.1, 14, 13, 14, 15
    EXPECT_EQ(normalized("NFKC", c), character(c)) << std::hex << c;
    EXPECT_EQ(normalized("NFKD", c), character(c)) << std::hex << c;
  }
  EXPECT_EQ(normalized("NFD", 0x11938), character(0x11938));
  EXPECT_EQ(normalized("NFKC", 0x1F250), "\xE5\xBE\x97");
  EXPECT_EQ(normalized("NFD", 0xE9), "e\xCC\x81");
  EXPECT_EQ(normalized("NFKC", 0xFB01), "fi");
}

TEST(Normalizer, LowercaseKnowsTheNewestLetters) {
  EXPECT_EQ(normalized("Lowercase", 0x1C89), character(0x1C8A));    // 16.0
  EXPECT_EQ(normalized("Lowercase", 0x10D50), character(0x10D70));  // 16.0
  EXPECT_EQ(normalized("Lowercase", 0x16EA0), character(0x16EBB));  // 17.0
  EXPECT_EQ(normalized("Lowercase", 0xC9), character(0xE9));
}

TEST(Normalizer, StripAccentsKnowsTheMarksOfTheReference) {
  EXPECT_EQ(normalized("StripAccents", 0x301), "");
  EXPECT_EQ(normalized("StripAccents", 0x10EFC), character(0x10EFC));
}

}  // namespace
}  // namespace chimera::tokenizer
