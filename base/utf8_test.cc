#include "base/utf8.h"

#include <gtest/gtest.h>

namespace chimera {
namespace {

bool is_scalar(uint32_t c) { return c < 0xD800 || (c > 0xDFFF && c <= 0x10FFFF); }

TEST(Utf8, EveryScalarValueReadsBackAndNothingElseIsWellFormed) {
  size_t wrong = 0;
  for (uint32_t c = 0; c <= 0x10FFFF; ++c) {
    if (!is_scalar(c)) continue;
    std::string text;
    append_char(c, text);
    const DecodedChar back = decode_char(text, 0);
    if (back.code_point != c || back.length != text.size() || utf8_length(text) != text.size() ||
        char_length(text[0]) != text.size() || find_invalid_utf8(text)) {
      ++wrong;
    }
  }
  EXPECT_EQ(wrong, 0u);

  // Of all three-byte texts, those that are whole characters are the characters of up to 3 bytes.
  size_t whole = 0;
  for (uint32_t bytes = 0; bytes < 1u << 24; bytes += 1) {
    const char text[3] = {static_cast<char>(bytes >> 16), static_cast<char>(bytes >> 8),
                          static_cast<char>(bytes)};
    whole += utf8_length({text, 3}) == 3 ? 1 : 0;
  }
  EXPECT_EQ(whole, 0x10000u - 0x800u - 0x800u) << "U+0800 to U+FFFF without the surrogates";
}

TEST(Utf8, RefusesOverlongFormsSurrogatesAndWhatLiesBeyond) {
  for (const char* bad :
       {"\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xF0\x8F\xBF\xBF",
        "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF", "\xE2\x82", "\xC3"}) {
    EXPECT_EQ(utf8_length(bad), 0u);
    EXPECT_EQ(find_invalid_utf8("ab" + std::string(bad)), 2u);
  }
}

TEST(Utf8, EachMaximalIllFormedPartBecomesOneReplacement) {
  EXPECT_EQ(lossy("a\xE2\x82z\xFF\xFF"), "a\uFFFDz\uFFFD\uFFFD");
  EXPECT_EQ(lossy("\xF0\x9F\x98\x80"), "\xF0\x9F\x98\x80");
  EXPECT_EQ(lossy("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");

  std::string pending = "ok\xE2\x82", out;
  drain_lossy(pending, /*final=*/false, out);
  EXPECT_EQ(out, "ok");
  EXPECT_EQ(pending, "\xE2\x82");
  pending += "\xAC";
  drain_lossy(pending, /*final=*/true, out);
  EXPECT_EQ(out, "ok\u20AC");
}

TEST(Utf8, CutsSplitNoCharacter) {
  EXPECT_EQ(cut_utf8("a\u20ACb", 3), "a");
  EXPECT_EQ(cut_utf8("a\u20ACb", 4), "a\u20AC");
  EXPECT_EQ(cut_utf8("a\u20ACb", 99), "a\u20ACb");
  EXPECT_EQ(cut_utf8("\u20AC", 2), "");
}

}  // namespace
}  // namespace chimera
