#include "base/log/log.h"

#include <gtest/gtest.h>

#include <limits>

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

TEST(Log, TheSameAsJson) {
  EXPECT_EQ(format_members("ready", {{"ms", 12}, {"ok", true}, {"share", 0.5}, {"path", "/a b"}}),
            R"("event":"ready","ms":12,"ok":true,"share":0.5,"path":"/a b")");
  EXPECT_EQ(format_members("x", {{"v", "a\n\"\x1b\xc2\x9b\xff"},
                                 {"d", std::numeric_limits<double>::infinity()}}),
            R"("event":"x","v":"a\n\"\u001b\u009b\ufffd","d":"inf")");
  EXPECT_EQ(*parse_format("json"), Format::kJson);
  EXPECT_EQ(parse_format("xml").status().message(),
            "log format: found xml (expected text or json)");
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
