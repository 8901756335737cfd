#include "base/trace_parent.h"

#include <gtest/gtest.h>

namespace chimera {
namespace {

const std::string kTrace = "4bf92f3577b34da6a3ce929d0e0e4736", kParent = "00f067aa0ba902b7";

std::string line(const std::string& version, const std::string& trace, const std::string& parent,
                 const std::string& flags) {
  return version + "-" + trace + "-" + parent + "-" + flags;
}

TEST(TraceParent, TheExamplesOfTheSpecification) {
  for (const std::string flags : {"00", "01"}) {
    const std::string text = line("00", kTrace, kParent, flags);
    const auto read = TraceParent::parse(text);
    ASSERT_TRUE(read.has_value()) << text;
    EXPECT_EQ(read->trace_id, kTrace);
    EXPECT_EQ(read->parent_id, kParent);
    EXPECT_EQ(read->text(), text);
  }
}

TEST(TraceParent, WhatIsInvalidIsNothing) {
  const std::string zeros(32, '0');
  for (const std::string& text :
       {std::string(),
        std::string("00"),
        line("ff", kTrace, kParent, "01"),
        line("00", zeros, kParent, "01"),
        line("00", kTrace, zeros.substr(16), "01"),
        line("00", "4BF92F3577B34DA6A3CE929D0E0E4736", kParent, "01"),
        line("00", kTrace, "00F067AA0BA902B7", "01"),
        line("0G", kTrace, kParent, "01"),
        line("00", kTrace, kParent, "0x"),
        line("00", kTrace, kParent, "1"),
        line("00", kTrace, kParent, "01-"),
        line("00", kTrace, kParent, "01-more"),
        line("00", kTrace, kParent, "011"),
        line("cc", kTrace, kParent, "01.more"),
        line("00", kTrace + "0", kParent, "01"),
        line("00", kTrace.substr(1), kParent + "0", "01"),
        line("00", kTrace, kParent, "01 "),
        " " + line("00", kTrace, kParent, "01"),
        line("00", kTrace, kParent, "01") + "\n",
        "00_" + kTrace + "-" + kParent + "-01",
        line("00", kTrace, kParent, "01") + "," + line("00", kTrace, kParent, "01")}) {
    EXPECT_FALSE(TraceParent::parse(text).has_value()) << text;
  }
}

TEST(TraceParent, LaterVersionsAreReadAsFarAsThisOneGoes) {
  for (const std::string flags : {"01", "01-what-the-future-holds"}) {
    const auto read = TraceParent::parse(line("cc", kTrace, kParent, flags));
    ASSERT_TRUE(read.has_value());
    EXPECT_EQ(read->text(), line("00", kTrace, kParent, "01"));
  }
  EXPECT_EQ(TraceParent::parse(line("cc", kTrace, kParent, "fe"))->flags, 0);
}

}  // namespace
}  // namespace chimera
