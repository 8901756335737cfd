// Which requests a canary gets, and when it is beyond a bound.
#include "daemon/registry/canary.h"

#include <gtest/gtest.h>

#include <string>

#include "daemon/registry/canary_bounds.h"

namespace chimera {
namespace {

TEST(CanaryLot, IsSpreadEvenlyWhateverTheIds) {
  for (const double fraction : {0.01, 0.1, 0.5, 0.9}) {
    for (const std::string client : {"", "uid:1000", "gateway"}) {
      constexpr int kRequests = 20'000;
      int drawn = 0;
      for (int i = 0; i < kRequests; ++i)
        drawn += drawn_for_canary(canary_lot(client, "r" + std::to_string(i)), fraction) ? 1 : 0;
      // Six standard deviations of a fair draw are below 0.022.
      EXPECT_NEAR(static_cast<double>(drawn) / kRequests, fraction, 0.022) << client;
    }
  }
}

TEST(CanaryLot, IsOfClientAndIdTogether) {
  EXPECT_EQ(canary_lot("a", "b"), canary_lot("a", "b"));
  EXPECT_NE(canary_lot("a", "bc"), canary_lot("ab", "c"));
  EXPECT_NE(canary_lot("a", "x"), canary_lot("b", "x"));
  EXPECT_FALSE(drawn_for_canary(0, 0.0));
  EXPECT_TRUE(drawn_for_canary(~uint64_t{0}, 1.0));
}

TEST(CanaryBounds, EachIsToldAndNoneBeforeEnoughWasSeen) {
  const CanarySide seen{.requests = 20,
                        .failed = 3,
                        .tokens = 100,
                        .decode_ms = 5000.0,
                        .scored_bytes = 1000,
                        .nats = 2079.4415416798357};  // 3000 bits
  CanaryBounds bounds;
  EXPECT_FALSE(broken_bound(bounds, seen));
  bounds.error_rate = 0.15;
  bounds.ms_per_token = 50.0;
  bounds.bits_per_byte = 3.001;
  EXPECT_FALSE(broken_bound(bounds, seen));
  bounds.bits_per_byte = 2.9;
  EXPECT_EQ(broken_bound(bounds, seen), "bits per byte: found 3 (expected at most 2.9)");
  bounds.ms_per_token = 49.5;
  EXPECT_EQ(broken_bound(bounds, seen), "ms per token: found 50 (expected at most 49.5)");
  bounds.error_rate = 0.1;
  EXPECT_EQ(broken_bound(bounds, seen), "error rate: found 0.15 (expected at most 0.1)");
  bounds.after = 21;
  EXPECT_FALSE(broken_bound(bounds, seen));
}

TEST(CanaryBounds, WhatWasNotSeenBreaksNone) {
  CanaryBounds bounds;
  bounds.after = 1;
  bounds.error_rate = bounds.ms_per_token = bounds.bits_per_byte = 0.0;
  EXPECT_FALSE(broken_bound(bounds, {.requests = 5}));
}

}  // namespace
}  // namespace chimera
