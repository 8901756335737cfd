#include "base/quote.h"

#include <gtest/gtest.h>

namespace chimera {
namespace {

TEST(Quote, ShowsTextAsItIs) {
  EXPECT_EQ(quote("layers.0.gate.weight"), "\"layers.0.gate.weight\"");
  EXPECT_EQ(quote("größer \xF0\x9F\x98\x80"), "\"größer \xF0\x9F\x98\x80\"");
  EXPECT_EQ(quote(""), "\"\"");
}

TEST(Quote, NothingInItForgesALineOrDrivesATerminal) {
  EXPECT_EQ(quote("a\nb\x1b[31m\x7f"), "\"a\\x0ab\\x1b[31m\\x7f\"");
  EXPECT_EQ(quote("\xC2\x9B"), "\"\\xc2\\x9b\"");
  EXPECT_EQ(quote("\xFF\xE2\x82"), "\"\\xff\\xe2\\x82\"");
  EXPECT_EQ(quote(std::string_view("a\0b", 3)), "\"a\\x00b\"");
}

TEST(Quote, WhereItEndsIsPlain) { EXPECT_EQ(quote(R"(a"b\)"), R"("a\"b\\")"); }

TEST(Quote, LongTextIsCutBetweenCharacters) {
  EXPECT_EQ(quote(std::string(95, 'x') + "é"), "\"" + std::string(95, 'x') + "…\"");
  EXPECT_EQ(quote("abc", 2), "\"ab…\"");
  EXPECT_EQ(quote("abc", 3), "\"abc\"");
}

TEST(Quote, VisibleTextOutsideQuotesKeepsItsQuotes) {
  std::string out = "> ";
  append_visible("say \"hi\"\r\n", out);
  EXPECT_EQ(out, "> say \"hi\"\\x0d\\x0a");
}

}  // namespace
}  // namespace chimera
