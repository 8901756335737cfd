#include "daemon/engine/sequence/pool.h"

#include <gmock/gmock.h>

#include <cmath>
#include <limits>
#include <random>

namespace chimera {
namespace {

using testing::ElementsAre;
using testing::FloatEq;

TEST(Pool, MeanAndLast) {
  const std::vector<float> states = {1, 2, 3, -4, 5, 0.5f};  // three of width 2
  Pool mean(Pooling::kMean), last(Pooling::kLast);
  EXPECT_THAT(mean.result(false), ElementsAre());
  ASSERT_TRUE(mean.add(states, 2) && last.add(states, 2));
  EXPECT_THAT(mean.result(false), ElementsAre(3.0f, -0.5f));
  EXPECT_THAT(last.result(false), ElementsAre(5.0f, 0.5f));
  const float length = std::sqrt(9.25f);
  EXPECT_THAT(mean.result(true), ElementsAre(FloatEq(3.0f / length), FloatEq(-0.5f / length)));
}

TEST(Pool, ADirectionlessMeanStaysZero) {
  Pool pool(Pooling::kMean);
  ASSERT_TRUE(pool.add(std::vector<float>{1, -2, -1, 2}, 2));
  EXPECT_THAT(pool.result(true), ElementsAre(0.0f, 0.0f));
}

TEST(Pool, PassesLeaveNoTrace) {
  constexpr unsigned kSeed = 26;
  constexpr size_t kWidth = 5, kRows = 40;
  std::mt19937 random(kSeed);
  std::normal_distribution<float> normal(0.0f, 1e3f);
  std::vector<float> states(kWidth * kRows);
  for (float& value : states) value = normal(random);
  for (const Pooling pooling : {Pooling::kMean, Pooling::kLast}) {
    Pool whole(pooling), cut(pooling);
    ASSERT_TRUE(whole.add(states, kWidth));
    for (size_t at = 0; at < kRows;) {
      const size_t n = std::min(kRows - at, 1 + random() % 7);
      ASSERT_TRUE(cut.add(std::span(states).subspan(at * kWidth, n * kWidth), kWidth));
      at += n;
    }
    EXPECT_EQ(cut.result(true), whole.result(true));
  }
}

TEST(Pool, WhatIsNotFiniteHasNoResult) {
  for (const float bad : {std::numeric_limits<float>::infinity(), std::nanf("")}) {
    for (const Pooling pooling : {Pooling::kMean, Pooling::kLast}) {
      Pool pool(pooling);
      EXPECT_FALSE(pool.add(std::vector<float>{1, bad, 3, 4}, 2));
    }
  }
}

}  // namespace
}  // namespace chimera
