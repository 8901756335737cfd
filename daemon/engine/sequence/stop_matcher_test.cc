#include "daemon/engine/sequence/stop_matcher.h"

#include <random>

#include <gtest/gtest.h>

namespace chimera {
namespace {

struct Outcome {
  std::string text;
  bool matched = false;
  bool operator==(const Outcome&) const = default;
};

/// The text up to the stop string that is complete first, looked at byte by byte.
Outcome reference(const std::string& text, const std::vector<std::string>& stops) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string& stop : stops) {
      if (stop.size() <= end && text.compare(end - stop.size(), stop.size(), stop) == 0)
        longest = std::max(longest, stop.size());
    }
    if (longest > 0) return {text.substr(0, end - longest), true};
  }
  return {text, false};
}

Outcome stream(const std::vector<std::string>& pieces, const std::vector<std::string>& stops) {
  StopMatcher matcher(stops);
  Outcome out;
  for (const std::string& piece : pieces) {
    const StopMatcher::Piece result = matcher.push(piece);
    out.text += result.text;
    out.matched = result.matched;
    if (out.matched) return out;
  }
  out.text += matcher.flush();
  return out;
}

TEST(StopMatcher, PassesTextThroughWithoutStops) {
  StopMatcher matcher({});
  EXPECT_EQ(matcher.push("abc").text, "abc");
  EXPECT_EQ(matcher.flush(), "");
}

TEST(StopMatcher, HoldsBackWhatCouldBecomeAStop) {
  StopMatcher matcher({"END"});
  EXPECT_EQ(matcher.push("text E").text, "text ");
  EXPECT_EQ(matcher.push("N").text, "");
  EXPECT_EQ(matcher.push("E").text, "EN");  // "ENE": only the last E can still begin it
  const StopMatcher::Piece last = matcher.push("ND more");
  EXPECT_EQ(last.text, "");
  EXPECT_TRUE(last.matched);
  EXPECT_EQ(matcher.flush(), "");
}

TEST(StopMatcher, FlushGivesBackWhatWasHeld) {
  StopMatcher matcher({"</s>"});
  EXPECT_EQ(matcher.push("a </s").text, "a ");
  EXPECT_EQ(matcher.flush(), "</s");
}

TEST(StopMatcher, FirstCompleteStopWins) {
  EXPECT_EQ(stream({"abcd"}, {"bcd", "c"}), (Outcome{"ab", true}));
  EXPECT_EQ(stream({"a", "b", "c", "d"}, {"bcd", "c"}), (Outcome{"ab", true}));
  EXPECT_EQ(stream({"xbcx"}, {"c", "bc"}), (Outcome{"x", true}));
}

TEST(StopMatcher, DoesNotDependOnThePieces) {
  constexpr uint32_t kSeed = 20240;
  std::mt19937 rng(kSeed);
  int matches = 0;
  for (int round = 0; round < 20000; ++round) {
    SCOPED_TRACE(testing::Message() << "seed " << kSeed << " round " << round);
    const auto word = [&](size_t min, size_t max) {
      std::string s(min + rng() % (max - min + 1), ' ');
      for (char& c : s) c = static_cast<char>('a' + rng() % 3);
      return s;
    };
    std::vector<std::string> stops;
    for (size_t n = 1 + rng() % 3; n > 0; --n) stops.push_back(word(1, 5));
    std::vector<std::string> pieces;
    std::string text;
    for (size_t n = rng() % 8; n > 0; --n) text += pieces.emplace_back(word(0, 4));
    const Outcome want = reference(text, stops);
    ASSERT_EQ(stream(pieces, stops), want) << text;
    matches += want.matched;
  }
  EXPECT_GT(matches, 2000);
  EXPECT_LT(matches, 18000);
}

}  // namespace
}  // namespace chimera
