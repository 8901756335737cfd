// Which characters the classes of expressions match, by the version of Unicode in force.
#include "text/tokenizer/regex/regex.h"

#include <gtest/gtest.h>
#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <set>

#include "text/unicode.h"
#include "text/unicode_data.h"

namespace chimera::tokenizer {
namespace {

using CodePoints = std::set<uint32_t>;

bool is_surrogate(uint32_t c) { return c >= 0xD800 && c < 0xE000; }

/// The characters among [0, 0x110000) that `expression` matches one by one; with or without those
/// that are newer than PCRE2's tables in the text, which makes it another program.
CodePoints matched(const std::string& expression, bool with_changed) {
  std::string text;
  for (uint32_t c = 0; c < 0x110000; ++c) {
    std::string one;
    if (is_surrogate(c)) continue;
    append_char(c, one);
    if (with_changed || !has_changed_characters(one)) text += one;
  }
  const auto regex = Regex::compile(expression);
  EXPECT_TRUE(regex.ok()) << regex.status().to_string();
  CodePoints out;
  if (!regex.ok()) return out;
  const Status status = regex->for_each_match(
      text, [&](size_t begin, size_t) { out.insert(decode_char(text, begin).code_point); });
  EXPECT_TRUE(status.ok()) << status.to_string();
  return out;
}

struct Category {
  const char* expression;
  std::vector<utf8proc_category_t> categories;
};

const std::vector<Category>& categories() {
  static const std::vector<Category> all = {
      {"\\p{Lu}", {UTF8PROC_CATEGORY_LU}},
      {"\\p{Ll}", {UTF8PROC_CATEGORY_LL}},
      {"\\p{Lt}", {UTF8PROC_CATEGORY_LT}},
      {"\\p{Lm}", {UTF8PROC_CATEGORY_LM}},
      {"\\p{Lo}", {UTF8PROC_CATEGORY_LO}},
      {"\\p{Mn}", {UTF8PROC_CATEGORY_MN}},
      {"\\p{Mc}", {UTF8PROC_CATEGORY_MC}},
      {"\\p{Nd}", {UTF8PROC_CATEGORY_ND}},
      {"\\p{No}", {UTF8PROC_CATEGORY_NO}},
      {"\\p{Po}", {UTF8PROC_CATEGORY_PO}},
      {"\\p{So}", {UTF8PROC_CATEGORY_SO}},
      {"\\p{Cf}", {UTF8PROC_CATEGORY_CF}},
      {"[\\p{L}]",
       {UTF8PROC_CATEGORY_LU, UTF8PROC_CATEGORY_LL, UTF8PROC_CATEGORY_LT, UTF8PROC_CATEGORY_LM,
        UTF8PROC_CATEGORY_LO}},
      {"\\p{Letter_Number}|\\p{Decimal_Number}|\\p{OtherNumber}",
       {UTF8PROC_CATEGORY_ND, UTF8PROC_CATEGORY_NL, UTF8PROC_CATEGORY_NO}},
      {"[^\\P{M}]", {UTF8PROC_CATEGORY_MN, UTF8PROC_CATEGORY_MC, UTF8PROC_CATEGORY_ME}},
  };
  return all;
}

/// Characters whose category is another in kUnicodeVersion than in utf8proc's.
const CodePoints kRecategorized = {0x1171E};

/// utf8proc has Unicode 15.0 from a source of its own, and whatever it assigns is assigned for
/// good.
TEST(Regex, CategoriesAgreeWithUtf8proc) {
  for (const Category& category : categories()) {
    for (const bool with_changed : {true, false}) {
      SCOPED_TRACE(std::string(category.expression) + (with_changed ? "" : " without changed"));
      const CodePoints found = matched(category.expression, with_changed);
      size_t differing = 0;
      for (uint32_t c = 0; c < 0x110000; ++c) {
        std::string one;
        if (is_surrogate(c) || kRecategorized.contains(c)) continue;
        append_char(c, one);
        if (!with_changed && has_changed_characters(one)) continue;
        const auto held = utf8proc_category(static_cast<utf8proc_int32_t>(c));
        if (held == UTF8PROC_CATEGORY_CN) continue;
        const auto& wanted = category.categories;
        const bool expected = std::find(wanted.begin(), wanted.end(), held) != wanted.end();
        differing += found.contains(c) != expected ? 1 : 0;
      }
      EXPECT_EQ(differing, 0u);
    }
  }
}

/// Sizes that Hugging Face's tokenizers 0.23.2 (Oniguruma 6.9.10) answered for the same
/// expressions.
TEST(Regex, ClassesAreAsLargeAsTheReferences) {
  static constexpr std::array<std::pair<const char*, size_t>, 24> kSizes = {
      {{"\\p{L}", 141028},       {"\\p{Lu}", 1858},       {"\\p{Ll}", 2258},
       {"\\p{Lm}", 404},         {"\\p{Lo}", 136477},     {"\\p{M}", 2501},
       {"\\p{Mn}", 2020},        {"\\p{Mc}", 468},        {"\\p{N}", 1911},
       {"\\p{Nd}", 760},         {"\\p{P}", 855},         {"\\p{S}", 8514},
       {"\\p{C}", 957236},       {"\\p{Cn}", 819533},     {"\\p{Han}", 99030},
       {"\\p{Hira}", 381},       {"\\p{Latin}", 1487},    {"\\p{Alphabetic}", 142759},
       {"\\p{Lowercase}", 2569}, {"\\w", 144671},         {"[\\w]", 144665},
       {"[[:punct:]]", 9369},    {"[[:graph:]]", 292447}, {"\\p{^L}", 971036}}};
  for (const auto& [expression, size] : kSizes) {
    EXPECT_EQ(matched(expression, true).size(), size) << expression;
  }
}

TEST(Regex, CharactersOfEveryNewVersionHaveTheirClass) {
  struct Case {
    uint32_t character;
    const char *in, *out;
  };
  const std::vector<Case> cases = {{0x323AF, "\\p{Han}", "\\P{Lo}"},
                                   {0x1E4F0, "\\d", "\\D"},  // 15.0
                                   {0x2EBF0, "\\p{Han}", "\\P{L}"},
                                   {0x31EF, "\\p{So}", "[^\\p{S}]"},  // 15.1
                                   {0x10D40, "\\p{N}", "[^\\p{Nd}]"},
                                   {0x1C89, "\\p{Lu}", "\\p{Ll}"},  // 16.0
                                   {0x1C8A, "\\w", "\\W"},
                                   {0x10EFC, "\\p{Mn}", "\\P{M}"},
                                   {0x16D6B, "\\p{Lm}", "\\p{Cn}"},
                                   {0x1CCF0, "[[:digit:]]", "[^[:alnum:]]"},
                                   {0x1171E, "\\p{Mc}", "\\p{Mn}"},
                                   {0x1FAE9, "\\p{So}", "\\p{C}"}};
  for (const Case& one : cases) {
    std::string text;
    append_char(one.character, text);
    const auto matches = [&](const char* expression) {
      size_t n = 0;
      const auto regex = Regex::compile(expression);
      EXPECT_TRUE(regex.ok()) << regex.status().to_string();
      EXPECT_TRUE(regex->for_each_match(text, [&](size_t, size_t) { ++n; }).ok());
      return n == 1;
    };
    EXPECT_TRUE(matches(one.in)) << std::hex << one.character << " " << one.in;
    EXPECT_FALSE(matches(one.out)) << std::hex << one.character << " " << one.out;
  }
}

}  // namespace
}  // namespace chimera::tokenizer
