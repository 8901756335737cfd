// Who runs in a step, and who gives way when there are no blocks: in steps, without a clock.
#include "daemon/engine/scheduling/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "daemon/engine/live_sequences.h"
#include "daemon/engine/testing.h"

namespace chimera {
namespace {

using namespace testing_support;

class SchedulerTest : public testing::Test {
 protected:
  void SetUp() override {
    CHIMERA_NEEDS_GOLDEN();
    world_ = std::make_unique<World>();
    table_ = world_->table(1, {world_->module("a")});
  }
  void TearDown() override {
    if (live_ == nullptr) return;
    for (const auto& sequence : live_->all()) live_->end(*sequence, FinishReason::kCancelled);
    live_->sweep();
    live_->send_endings();
  }
  void make(int64_t blocks, int64_t chunk = 128, bool prefix_cache = true, int64_t lone = 0) {
    KvCacheOptions cache;
    cache.blocks = blocks;  // of 16 tokens
    live_ = std::make_unique<LiveSequences>(LiveSequences::Options{.max_sequences = 64,
                                                                   .max_context = 16384,
                                                                   .prefill_chunk = chunk,
                                                                   .lone_chunk = lone,
                                                                   .row_positions = 1000.0,
                                                                   .prefix_cache = prefix_cache},
                                            must(KvCache::create(world_->config, cache)),
                                            &counters_, &reaper_);
  }
  PendingRequest pending(size_t n, int64_t max_tokens) {
    return pending(prompt(static_cast<int32_t>(last_id_ + 1), n), max_tokens);
  }
  PendingRequest pending(std::vector<int32_t> tokens, int64_t max_tokens) {
    sinks_.push_back(std::make_shared<Collector>());
    return {++last_id_, greedy(std::move(tokens), max_tokens), Ticket(sinks_.back())};
  }
  Sequence* admit(size_t n, int64_t max_tokens = 4) {
    live_->admit(pending(n, max_tokens), table_);
    return live_->all().back().get();
  }
  /// One step without arithmetic: whoever is in it and has run all its tokens draws token 1.
  /// Returns how many tokens each ran.
  std::map<Sequence*, int64_t> step() {
    Batch batch;
    live_->scheduler().build(live_->all(), batch);
    std::map<Sequence*, int64_t> ran;
    for (size_t i = 0; i < batch.owners.size(); ++i) {
      Sequence& s = *batch.owners[i];
      const auto n = static_cast<int64_t>(batch.segments[i].tokens.size());
      ran[&s] = n;
      EXPECT_EQ(batch.segments[i].position, s.computed);
      EXPECT_GE(static_cast<int64_t>(s.kv.blocks().size()) * 16, s.computed + n);
      s.ran(n);
      live_->scheduler().publish_blocks(s);
      if (s.uncomputed() > 0) continue;
      if (const auto reason = s.accept({.token = 1}, false)) live_->end(s, *reason);
    }
    live_->scheduler().record(10.0);
    counters_.paused += live_->scheduler().take_paused();
    live_->sweep();
    live_->send_endings();
    return ran;
  }
  /// Steps until `sequence` has its first token.
  int steps_to_first_token(const Sequence* sequence) {
    int steps = 0;
    while (sequence->generated() == 0 && steps < 10000) {
      step();
      ++steps;
    }
    return steps;
  }

  std::unique_ptr<World> world_;
  std::shared_ptr<const RoutingTable> table_;
  EngineStats counters_;
  Reaper reaper_;
  std::unique_ptr<LiveSequences> live_;
  std::vector<std::shared_ptr<Collector>> sinks_;
  RequestId last_id_ = 0;
};

TEST_F(SchedulerTest, AShortPromptWaitsAtMostThreeStepsHoweverManyLongOnesAreBeforeIt) {
  make(8 * 1024);
  for (int i = 0; i < 8; ++i) admit(8000);
  for (int i = 0; i < 20; ++i) step();
  EXPECT_LE(steps_to_first_token(admit(8, 1000)), 3);
  // And while short ones come all the time.
  for (int i = 0; i < 20; ++i) {
    Sequence* one = admit(8, 1000);
    EXPECT_LE(steps_to_first_token(one), 3) << i;
  }
}

TEST_F(SchedulerTest, LongPromptsComeForwardBesideAStreamOfShortOnes) {
  make(8 * 1024);
  Sequence* long_one = admit(2000);
  int steps = 0;
  for (; long_one->generated() == 0 && steps < 2000; ++steps) {
    // More than a step takes, shortest first, again and again.
    while (live_->all().size() < 20) admit(60, 1);
    step();
  }
  EXPECT_GT(long_one->generated(), 0);
  // A quarter of what every step may take at least: 16 units.
  EXPECT_LE(steps, 2000 / (static_cast<int>(StepPace::kLeast) / 4) + 200);
}

TEST_F(SchedulerTest, WhatIsShorterGoesFirstAndTheFirstComeGoesOn) {
  make(8 * 1024);
  Sequence* first = admit(8000);
  for (int i = 0; i < 5; ++i) step();
  Sequence* second = admit(2000);
  Sequence* third = admit(500);
  const int64_t before = first->computed;
  steps_to_first_token(third);
  EXPECT_LT(second->computed, 100) << "the shortest rest had all but the quarter";
  EXPECT_GT(first->computed, before + 100) << "a quarter of what the third took three quarters of";
  steps_to_first_token(second);
  EXPECT_EQ(first->generated(), 0);
  steps_to_first_token(first);
}

TEST_F(SchedulerTest, WhatBeginsAlikeIsComputedOnce) {
  make(8 * 1024);
  std::vector<int32_t> alike = prompt(7, 1000), other = alike;
  other[40] ^= 1;  // two blocks of 16 in common
  std::vector<Sequence*> same;
  for (int i = 0; i < 4; ++i) {
    live_->admit(pending(alike, 1000), table_);
    same.push_back(live_->all().back().get());
  }
  live_->admit(pending(other, 1000), table_);
  Sequence* differs = live_->all().back().get();
  std::map<Sequence*, int64_t> ran;
  while (differs->generated() == 0 || same.back()->generated() == 0) {
    for (const auto& [sequence, tokens] : step()) ran[sequence] += tokens;
  }
  // The first one has drawn tokens since, each of which ran.
  EXPECT_EQ(ran[same[0]] - same[0]->generated() + 1, 1000);
  EXPECT_EQ(same[0]->cached, 0);
  for (size_t i = 1; i < same.size(); ++i) {
    EXPECT_EQ(same[i]->cached, 992) << i;
    EXPECT_EQ(ran[same[i]] - same[i]->generated() + 1, 8) << i;
  }
  EXPECT_EQ(differs->cached, 32);
}

TEST_F(SchedulerTest, APromptThatIsAloneTakesLargerChunksUntilSomebodyComes) {
  make(8 * 1024, 32, /*prefix_cache=*/false, 128);
  Sequence* alone = admit(8000, 1000);
  std::map<Sequence*, int64_t> ran;
  for (int i = 0; i < 10; ++i) ran = step();
  EXPECT_GT(ran[alone], 48) << "128 units, of which a row so far back takes nearly two";
  // A prompt that waits beside it, then a stream.
  Sequence* other = admit(200, 1000);
  for (int i = 0; i < 20; ++i) {
    ran = step();
    EXPECT_LE(ran[alone] + (other->decoding() ? 0 : ran[other]), 32) << i;
  }
  EXPECT_GT(other->generated(), 0);
  EXPECT_GT(alone->uncomputed(), 1000);
}

TEST_F(SchedulerTest, DecodingRunsInEveryStep) {
  make(8 * 1024);
  Sequence* stream = admit(4, 1000);
  steps_to_first_token(stream);
  for (int i = 0; i < 4; ++i) admit(3000);
  for (int i = 0; i < 30; ++i) EXPECT_EQ(step()[stream], 1) << i;
}

TEST_F(SchedulerTest, BlocksAreTakenAsASequenceGrows) {
  make(64);
  Sequence* one = admit(20, 900);
  EXPECT_EQ(one->kv.blocks().size(), 0u);
  steps_to_first_token(one);
  EXPECT_EQ(one->kv.blocks().size(), 2u);
  for (int i = 0; i < 40; ++i) step();
  EXPECT_EQ(one->kv.blocks().size(), 4u);
}

TEST_F(SchedulerTest, TheYoungestGivesWayAndAllComeToTheirEnd) {
  make(16, 128, /*prefix_cache=*/false);  // 256 tokens for 3 x 210
  std::vector<Sequence*> all;
  std::vector<RequestId> ids;
  for (int i = 0; i < 3; ++i) all.push_back(admit(10, 200));
  int steps = 0;
  bool youngest_paused = false;
  for (; !live_->empty() && steps < 5000; ++steps) {
    Sequence* oldest = live_->all().front().get();
    for (const auto& s : live_->all()) {
      if (!s->paused) continue;
      youngest_paused = true;
      EXPECT_TRUE(s->kv.blocks().empty());
    }
    EXPECT_TRUE(step().contains(oldest));
  }
  EXPECT_TRUE(youngest_paused);
  EXPECT_TRUE(live_->empty());
  EXPECT_GE(counters_.paused, 1u);
  EXPECT_LE(counters_.paused, 6u) << "nobody is paused again and again";
  for (const auto& sink : sinks_) {
    EXPECT_EQ(sink->done().finish_reason, FinishReason::kLength);
    EXPECT_EQ(sink->tokens().size(), 200u);
  }
}

TEST_F(SchedulerTest, NobodyStartsWhileSomebodyIsPausedOrBeforePromptsHaveTheirBlocks) {
  make(16, 128, /*prefix_cache=*/false);
  admit(100, 100);
  EXPECT_FALSE(live_->has_room_for(pending(160, 1))) << "100 and 160 tokens are 17 blocks";
  EXPECT_TRUE(live_->has_room_for(pending(100, 1000))) << "what it may need later is not kept";
  admit(100, 100);
  while (counters_.paused == 0) step();
  EXPECT_FALSE(live_->has_room_for(pending(1, 1)));
  for (const auto& sequence : live_->all()) live_->end(*sequence, FinishReason::kCancelled);
  live_->sweep();
  live_->send_endings();
  sinks_.clear();
}

}  // namespace
}  // namespace chimera
