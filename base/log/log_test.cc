#include "base/log/log.h"

#include <gtest/gtest.h>

namespace chimera::log {
namespace {

TEST(Log, WritesKeysAndValues) {
  EXPECT_EQ(format_line("ready", {{"ms", 12}, {"ok", true}, {"share", 0.5}}),
            "ready ms=12 ok=true share=0.5");
  EXPECT_EQ(format_line("x", {{"path", "/a b"}, {"empty", ""}}), "x path=\"/a b\" empty=\"\"");
}

TEST(Log, EscapesWhatCouldForgeALineOrDriveATerminal) {
  EXPECT_EQ(format_line("x", {{"v", "a\nINFO fake"}}), "x v=\"a\\x0aINFO fake\"");
  EXPECT_EQ(format_line("x", {{"v", "\x1b[31m"}}), "x v=\\x1b[31m");
  EXPECT_EQ(format_line("x", {{"v", "\xc2\x9b"}}), "x v=\\xc2\\x9b");
  EXPECT_EQ(format_line("x", {{"v", "\xff\xc3"}}), "x v=\\xff\\xc3");
  EXPECT_EQ(format_line("x", {{"v", "say \"hi\" \\"}}), "x v=\"say \\\"hi\\\" \\\\\"");
  EXPECT_EQ(format_line("x", {{"v", "Grüße"}}), "x v=Grüße");
}

TEST(Log, LevelNames) {
  EXPECT_TRUE(parse_level("debug").ok());
  const auto bad = parse_level("loud");
  ASSERT_FALSE(bad.ok());
  EXPECT_EQ(bad.status().message(),
            "log level: found loud (expected debug, info, warning or error)");
}

}  // namespace
}  // namespace chimera::log
