#include "clients/gateway/run/as_one.h"

#include <gmock/gmock.h>

namespace chimera::gateway {
namespace {

using std::chrono::milliseconds;
using Take = CallsAsOne::Take;
using ::testing::ElementsAre;

const CallsAsOne::Time kNow{};

TEST(CallsAsOne, WhatIsDoneOnOneEpochCounts) {
  CallsAsOne calls;
  for (size_t i = 0; i < 5; ++i) EXPECT_EQ(calls.done(i, 3, kNow), Take::kCounts);
}

TEST(CallsAsOne, ANewerEpochBeginsAnewAndOlderOnesComeOnceMore) {
  CallsAsOne calls;
  EXPECT_EQ(calls.done(0, 3, kNow), Take::kCounts);
  EXPECT_EQ(calls.done(2, 3, kNow), Take::kCounts);
  EXPECT_EQ(calls.done(3, 5, kNow), Take::kBeginAnew);
  EXPECT_THAT(calls.take_outdated(), ElementsAre(0, 2));
  EXPECT_EQ(calls.done(1, 3, kNow), Take::kOnceMore) << "it was on its way when it changed";
  EXPECT_EQ(calls.done(1, 5, kNow), Take::kCounts);
  EXPECT_EQ(calls.done(0, 5, kNow), Take::kCounts);
  EXPECT_EQ(calls.done(2, 6, kNow), Take::kBeginAnew);
  EXPECT_THAT(calls.take_outdated(), ElementsAre(3, 1, 0));
}

TEST(CallsAsOne, WhatKeepsChangingIsTold) {
  CallsAsOne calls;
  EXPECT_EQ(calls.done(0, 1, kNow), Take::kCounts);
  for (uint64_t epoch = 2; epoch <= CallsAsOne::kMaxBeginnings; ++epoch) {
    EXPECT_EQ(calls.done(0, epoch, kNow), Take::kBeginAnew);
  }
  EXPECT_EQ(calls.done(0, 9, kNow), Take::kGiveUp);
  EXPECT_EQ(CallsAsOne::kept_changing().status, 503u);
}

TEST(CallsAsOne, ItIsLetInWithTheFirstThatIsDone) {
  CallsAsOne calls;
  EXPECT_FALSE(calls.is_let_in(kNow));
  (void)calls.done(0, 1, kNow);
  EXPECT_TRUE(calls.is_let_in(kNow + CallsAsOne::kPatience));
  EXPECT_FALSE(calls.is_let_in(kNow + CallsAsOne::kPatience + milliseconds(1)));
}

TEST(CallsAsOne, TheDeadlineIsOfAllTogether) {
  wire::Embed embed;
  embed.deadline_ms = 100;
  wire::Call call = embed;
  EXPECT_TRUE(CallsAsOne::shorten_deadline(call, milliseconds(40)));
  EXPECT_EQ(std::get<wire::Embed>(call).deadline_ms, 60);
  EXPECT_FALSE(CallsAsOne::shorten_deadline(call, milliseconds(60)));
  wire::Call none = wire::Embed{};
  EXPECT_TRUE(CallsAsOne::shorten_deadline(none, milliseconds(1'000'000)));
}

}  // namespace
}  // namespace chimera::gateway
