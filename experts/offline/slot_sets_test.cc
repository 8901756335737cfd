// Slot sets on the command line and in YAML maps, and the text of a report.
#include "experts/offline/slot_sets.h"

#include <gtest/gtest.h>

#include <sstream>

#include "experts/offline/module_print.h"

namespace chimera {
namespace {

using Slots = std::map<int64_t, std::vector<int64_t>>;

TEST(SlotSets, OfTheCommandLine) {
  const auto module = parse_split_module("legal=2-4,7");
  ASSERT_TRUE(module.ok());
  EXPECT_EQ(module->name, "legal");
  EXPECT_EQ(module->slots, (Slots{{-1, {2, 3, 4, 7}}}));
  EXPECT_EQ(parse_split_module("a=0:1,2;3:4")->slots, (Slots{{0, {1, 2}}, {3, {4}}}));
  EXPECT_TRUE(parse_split_module("a")->slots.empty());
  for (const char* bad : {"a=", "a=x", "a=4-2", "a=1,,2", "a=70000", "a=0:1;0:2", "a=:1", "a=-1"}) {
    EXPECT_EQ(parse_split_module(bad).status().code(), Code::kInvalidArgument) << bad;
  }
}

TEST(SlotSets, OfAMap) {
  const auto modules = parse_split_map(
      "legal: 2-5,7\n"
      "bio:\n  0: [1, 2]\n  3-4: 4\n  all: 6-7\n"
      "finance: [0, 8-9]\n",
      "map.yaml");
  ASSERT_TRUE(modules.ok()) << modules.status().to_string();
  ASSERT_EQ(modules->size(), 3u);
  EXPECT_EQ((*modules)[0].slots, (Slots{{-1, {2, 3, 4, 5, 7}}}));
  EXPECT_EQ((*modules)[1].name, "bio");
  EXPECT_EQ((*modules)[1].slots, (Slots{{-1, {6, 7}}, {0, {1, 2}}, {3, {4}}, {4, {4}}}));
  EXPECT_EQ((*modules)[2].slots, (Slots{{-1, {0, 8, 9}}}));
}

TEST(SlotSets, ProblemsOfAMapAreAllNamedWithTheirPlaces) {
  const auto modules = parse_split_map(
      "Legal: 1\n"
      "bio: {0: x, z: 1, 2-3: 1, 3: 2}\n"
      "c: []\n",
      "map.yaml");
  ASSERT_FALSE(modules.ok());
  const std::string text = modules.status().message();
  for (const char* part : {"map.yaml:1:1: module name", "map.yaml:2:10: slots",
                           "map.yaml:2:13: layer", "map.yaml:2:27: layer", "map.yaml:3:4: slots"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << " in\n" << text;
  }
  EXPECT_FALSE(parse_split_map("- 1\n", "map.yaml").ok());
  EXPECT_EQ(read_split_map("/nowhere/map.yaml").status().code(), Code::kNotFound);
}

TEST(ReportText, StaysWithin80ColumnsAndKeepsWords) {
  Json report;
  report["fingerprint"] = "sha256:" + std::string(64, 'a');
  report["active_parameters"] = 1300000000;
  report["memory"] = {{"f32", 27600000000}, {"bf16", 13800000000}};
  report["runs"] = false;
  std::string refused;
  for (int i = 0; i < 40; ++i) refused += "word" + std::to_string(i) + " ";
  report["refused"] = refused;
  const std::string text = report_text(report);
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    EXPECT_LE(line.size(), 80u) << line;
    EXPECT_FALSE(line.ends_with(' ')) << line;
  }
  for (const char* part :
       {"\n  sha256:aaaa", "active parameters  1.3 billion",
        "memory             f32 27.6 GB, bf16 13.8 GB", "runs               no", " word39"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << " in\n" << text;
  }
}

}  // namespace
}  // namespace chimera
