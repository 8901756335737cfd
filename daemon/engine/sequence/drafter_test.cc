// Guesses of what follows: where they come from, and how they follow success.
#include "daemon/engine/sequence/drafter.h"

#include <gtest/gtest.h>

namespace chimera {
namespace {

using Tokens = std::vector<int32_t>;

/// A drafter that guesses as much as it can.
Drafter eager() {
  Drafter drafter;
  for (int i = 0; i < 4; ++i) drafter.record(1, 1);
  return drafter;
}

TEST(Drafter, WhatFollowedTheLastTokensBefore) {
  EXPECT_EQ(eager().draft(Tokens{1, 2, 3, 4, 5, 6, 9, 1, 2, 3}, 3), (Tokens{4, 5, 6}));
  // Of two places the one where more stood before, of equal ones the latest.
  EXPECT_EQ(eager().draft(Tokens{7, 1, 2, 3, 30, 8, 1, 2, 3, 40, 7, 1, 2, 3}, 1), (Tokens{30}));
  EXPECT_EQ(eager().draft(Tokens{1, 2, 3, 30, 1, 2, 3, 40, 1, 2, 3}, 1), (Tokens{40}));
}

TEST(Drafter, WhatReachesTheLastTokenGoesRound) {
  EXPECT_EQ(eager().draft(Tokens{5, 5, 5, 5}, 4), (Tokens{5, 5, 5, 5}));
  EXPECT_EQ(eager().draft(Tokens{1, 2, 3, 1, 2, 3}, 8), (Tokens{1, 2, 3, 1, 2, 3, 1, 2}));
}

TEST(Drafter, NothingWithoutAMatchOrRoom) {
  EXPECT_TRUE(eager().draft(Tokens{1, 2, 3, 4, 2, 3}, 4).empty());  // two tokens are no match
  EXPECT_TRUE(eager().draft(Tokens{1, 2, 3, 1, 2, 3}, 0).empty());
  EXPECT_TRUE(eager().draft(Tokens{1}, 4).empty());
  EXPECT_TRUE(eager().draft(Tokens{}, 4).empty());
}

TEST(Drafter, LengthFollowsSuccess) {
  const Tokens tokens{1, 2, 3, 1, 2, 3};
  Drafter drafter;
  EXPECT_EQ(drafter.draft(tokens, 20).size(), 2u);
  drafter.record(2, 2);
  EXPECT_EQ(drafter.draft(tokens, 20).size(), 4u);
  drafter.record(4, 4);
  EXPECT_EQ(drafter.draft(tokens, 20).size(), 8u);
  drafter.record(8, 8);
  EXPECT_EQ(drafter.draft(tokens, 20).size(), 8u);
  drafter.record(8, 3);
  EXPECT_EQ(drafter.draft(tokens, 20).size(), 3u);
  EXPECT_EQ(drafter.draft(tokens, 2).size(), 2u);
}

TEST(Drafter, RestsAfterFailureAndLongerEachTime) {
  const Tokens tokens{1, 2, 3, 1, 2, 3};
  Drafter drafter;
  const auto rests = [&] {
    int n = 0;
    while (drafter.draft(tokens, 20).empty() && n < 1000) ++n;
    return n;
  };
  for (const int expected : {4, 8, 16, 32, 64, 64}) {
    drafter.record(1, 0);
    EXPECT_EQ(rests(), expected);
  }
  EXPECT_EQ(drafter.draft(tokens, 20).size(), 1u);
  drafter.record(1, 1);
  drafter.record(2, 0);
  EXPECT_EQ(rests(), 4);
}

}  // namespace
}  // namespace chimera
