// Character classes against counts and against utf8proc, whose tables come from elsewhere.
#include "text/unicode.h"

#include <gtest/gtest.h>
#include <utf8proc.h>

#include <set>

#include "text/unicode_data.h"

namespace chimera::tokenizer {
namespace {

constexpr uint32_t kEnd = 0x110000;

bool is_surrogate(uint32_t c) { return c >= 0xD800 && c < 0xE000; }

template <class Holds>
size_t count(const Holds& holds) {
  size_t n = 0;
  for (uint32_t c = 0; c < kEnd; ++c) n += !is_surrogate(c) && holds(c) ? 1 : 0;
  return n;
}

/// The figures are what Hugging Face's tokenizers 0.23.2 answered when it was asked about every
/// code point.
TEST(Unicode, ClassesAreAsLargeAsTheReferences) {
  EXPECT_EQ(count(is_white_space), 25u);
  EXPECT_EQ(count(is_numeric), 1924u);
  EXPECT_EQ(count(is_punctuation), 726u);
  EXPECT_EQ(count(is_mark), 2097u);
  EXPECT_EQ(count(is_word), 144667u);
  EXPECT_EQ(count([](uint32_t c) { return to_lower(c) != c; }), 1488u);
}

// Punctuation of 8.0 and marks of 9.0 that later versions call something else.
const std::set<uint32_t> kRecategorized = {0x166D, 0x111C9, 0x1CF2, 0x1CF3};

TEST(Unicode, ClassesAgreeWithUtf8procWhereBothKnowTheCharacter) {
  for (uint32_t c = 0x80; c < kEnd; ++c) {
    const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
    if (is_surrogate(c) || category == UTF8PROC_CATEGORY_CN) continue;
    const bool number = category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL ||
                        category == UTF8PROC_CATEGORY_NO;
    const bool mark = category >= UTF8PROC_CATEGORY_MN && category <= UTF8PROC_CATEGORY_ME;
    const bool punctuation = category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO;
    EXPECT_EQ(is_numeric(c), number) << std::hex << c;
    // Older versions know less, but nothing else.
    EXPECT_TRUE(!is_mark(c) || mark || kRecategorized.contains(c)) << std::hex << c;
    EXPECT_TRUE(!is_punctuation(c) || punctuation || kRecategorized.contains(c)) << std::hex << c;
    if (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_ND) {
      EXPECT_TRUE(is_word(c)) << std::hex << c;  // letters, marks, decimal digits
    }
  }
}

TEST(Unicode, ChangedCharactersAreFoundWhereverTheyStand) {
  std::set<uint32_t> changed;
  for (const CodePointRange& range : changed_characters()) {
    for (uint32_t c = range.first; c <= range.last; ++c) changed.insert(c);
  }
  EXPECT_GT(changed.size(), 10'000u);
  std::string all_others;
  for (uint32_t c = 0; c < kEnd; ++c) {
    if (is_surrogate(c)) continue;
    std::string text;
    append_char(c, text);
    ASSERT_EQ(has_changed_characters(text), changed.contains(c)) << std::hex << c;
    if (!changed.contains(c)) all_others += text;
  }
  EXPECT_FALSE(has_changed_characters(all_others));
  for (size_t before = 0; before < 20; ++before) {
    EXPECT_TRUE(has_changed_characters(std::string(before, 'x') + "\xF0\x90\xB5\x80yyyyyyyyy"));
    EXPECT_FALSE(has_changed_characters(std::string(before, 'x') + "\xE4\xB8\x80yyyyyyyyy"));
  }
}

}  // namespace
}  // namespace chimera::tokenizer
