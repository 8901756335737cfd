#include "daemon/engine/live_sequences.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "daemon/engine/testing.h"

namespace chimera {
namespace {

using namespace testing_support;
using ::testing::HasSubstr;

class LiveSequencesTest : public testing::Test {
 protected:
  void SetUp() override {
    CHIMERA_NEEDS_GOLDEN();
    world_ = std::make_unique<World>();
    table_ = world_->table(1, {world_->module("a"), world_->module("b")});
    KvCacheOptions cache;
    cache.blocks = 4;  // of 16 tokens
    live_ = std::make_unique<LiveSequences>(
        LiveSequences::Options{.max_sequences = 2, .max_context = 64, .prefill_chunk = 16},
        must(KvCache::create(world_->config, cache)), &counters_, &reaper_);
  }
  PendingRequest pending(size_t n, int64_t max_tokens) {
    sinks_.push_back(std::make_shared<Collector>());
    return {++last_id_, greedy(prompt(1, n), max_tokens), Ticket(sinks_.back())};
  }
  std::vector<RequestId> send() {
    live_->sweep();
    live_->count_occupancy();
    std::vector<RequestId> ids;
    for (const RequestEnd& end : live_->send_endings()) ids.push_back(end.id);
    return ids;
  }
  RouteViewPtr view_of(const std::shared_ptr<const RoutingTable>& table) {
    return must(make_route_view(table, table->all(), std::vector<float>(table->modules().size())));
  }

  std::unique_ptr<World> world_;
  std::shared_ptr<const RoutingTable> table_;
  EngineStats counters_;
  Reaper reaper_;
  std::unique_ptr<LiveSequences> live_;
  std::vector<std::shared_ptr<Collector>> sinks_;
  RequestId last_id_ = 0;
};

TEST_F(LiveSequencesTest, EveryRequestEndsOnceHoweverOftenItIsEnded) {
  live_->admit(pending(5, 3), table_);
  Sequence& sequence = *live_->all()[0];
  live_->end(sequence, FinishReason::kCancelled);
  live_->end(sequence, FinishReason::kLength);
  live_->fail(sequence, Status(Code::kInternal, "late"));
  EXPECT_TRUE(live_->has_endings());
  EXPECT_EQ(sinks_[0]->terminals(), 0) << "before the statistics were shown";
  EXPECT_EQ(send(), std::vector<RequestId>{1});
  EXPECT_EQ(sinks_[0]->terminals(), 1);
  EXPECT_EQ(sinks_[0]->done().finish_reason, FinishReason::kCancelled);
  EXPECT_EQ(counters_.cancelled, 1u);
  EXPECT_EQ(counters_.finished + counters_.failed, 0u);
  EXPECT_TRUE(live_->empty());
  EXPECT_FALSE(live_->has_endings());
  EXPECT_EQ(counters_.kv_blocks_free, 4);
}

TEST_F(LiveSequencesTest, RoomIsSlotsAndBlocksAndTheFirstAlwaysFits) {
  EXPECT_TRUE(live_->has_room_for(pending(60, 1000)));  // clipped to the context
  live_->admit(pending(20, 10), table_);
  EXPECT_TRUE(live_->has_room_for(pending(31, 1000))) << "what it draws later is not kept for it";
  EXPECT_FALSE(live_->has_room_for(pending(40, 10))) << "two of four blocks are promised";
  live_->admit(pending(5, 5), table_);
  EXPECT_FALSE(live_->has_room_for(pending(1, 1))) << "both slots are taken";
  live_->count_occupancy();
  EXPECT_EQ(counters_.live, 2);
  EXPECT_EQ(counters_.kv_blocks_free, 4) << "blocks are taken when they are needed";
  for (const auto& sequence : live_->all()) live_->end(*sequence, FinishReason::kCancelled);
  send();
  sinks_.clear();
}

TEST_F(LiveSequencesTest, ARequestWhoseModulesWentWhileItWaitedIsRevoked) {
  // A backbone with experts of its own would be left to it.
  const World bare("flex_olmo_f32", 0);
  PendingRequest only_a = pending(5, 3);
  only_a.request.modules.only = {"a"};
  live_->admit(std::move(only_a), bare.table(2, {bare.module("b")}));
  EXPECT_TRUE(live_->empty());
  send();
  EXPECT_EQ(sinks_[0]->done().finish_reason, FinishReason::kRevoked);
  EXPECT_EQ(counters_.admitted, 0u);
  EXPECT_EQ(counters_.finished, 1u);
}

TEST_F(LiveSequencesTest, EpochsAreCountedPerTableAndViewsAreLetGo) {
  live_->admit(pending(5, 3), table_);
  live_->admit(pending(5, 3), table_);
  auto next = world_->table(4, {world_->module("b")});
  live_->restart(*live_->all()[1], view_of(next));
  EXPECT_EQ(counters_.restarted, 1u);
  const std::vector<EpochInfo> epochs = live_->epochs(*next, nullptr);
  ASSERT_EQ(epochs.size(), 2u);
  EXPECT_EQ(epochs[0].epoch, 1u);
  EXPECT_EQ(epochs[0].sequences, 1);
  EXPECT_FALSE(epochs[0].current);
  EXPECT_EQ(epochs[1].epoch, 4u);
  EXPECT_EQ(epochs[1].sequences, 1);
  EXPECT_TRUE(epochs[1].current);

  live_->restart(*live_->all()[0], Status(Code::kNotFound, "nothing is left"));
  const std::weak_ptr<const RoutingTable> old = table_;
  table_.reset();
  send();
  reaper_.flush();
  EXPECT_TRUE(old.expired());
  EXPECT_EQ(sinks_[0]->done().finish_reason, FinishReason::kRevoked);
  live_->end(*live_->all()[0], FinishReason::kCancelled);
  send();
}

/// Sequences that may use some of several bundles, whose averages cannot be made.
class WithoutAverage : public LiveSequencesTest {
 protected:
  void SetUp() override {
    LiveSequencesTest::SetUp();
    if (IsSkipped()) return;
    const auto make = [this](Averages::Modules bundles) -> Result<std::shared_ptr<const Backbone>> {
      std::string names;
      for (const auto& bundle : bundles) names += bundle->name();
      ++made_[names];
      return why_;
    };
    world_->builder.emplace(world_->config, world_->base, nullptr, make);
    for (const char* name : {"a", "b", "c"}) {
      const auto module = world_->module(name);
      module->bundle = std::make_shared<const Bundle>();
      bundles_.push_back(module);
    }
    table_ = world_->table(5, bundles_);
    counters_.canary.epoch = 5;
  }
  void restart_with(std::chrono::milliseconds room) {
    KvCacheOptions cache;
    cache.blocks = 4;
    live_ = std::make_unique<LiveSequences>(
        LiveSequences::Options{
            .max_sequences = 2, .max_context = 64, .prefill_chunk = 16, .experts_room = room},
        must(KvCache::create(world_->config, cache)), &counters_, &reaper_);
  }
  void admit_without(const std::string& name) {
    PendingRequest request = pending(5, 3);
    request.request.modules.exclude = {name};
    live_->admit(std::move(request), table_);
  }
  /// Until those that were begun have failed: they are made in turn.
  void settle() {
    const auto others = world_->builder->averages()->of(std::vector{bundles_[2], bundles_[0]});
    EXPECT_FALSE(others->wait(AverageFor::kRequest).ok());
  }

  Status why_{Code::kResourceExhausted, "no room"};
  std::map<std::string, int> made_;  // how often, looked at once they are settled
  std::vector<std::shared_ptr<const Module>> bundles_;
};

TEST_F(WithoutAverage, AllThatFoundNoRoomTryAgainAtATime) {
  restart_with(std::chrono::hours(1));
  admit_without("c");
  admit_without("a");
  settle();
  EXPECT_EQ(made_["ab"], 1);
  EXPECT_EQ(made_["bc"], 1);
  EXPECT_TRUE(live_->look_at_experts());
  settle();
  EXPECT_EQ(made_["ab"], 2);
  EXPECT_EQ(made_["bc"], 2);
  EXPECT_FALSE(live_->has_endings());
  for (const auto& sequence : live_->all()) live_->end(*sequence, FinishReason::kCancelled);
  send();
}

TEST_F(WithoutAverage, WhatIsWrongWithItIsToldAndCountsAgainstTheCanary) {
  admit_without("c");
  settle();
  live_->look_at_experts();
  send();
  EXPECT_EQ(sinks_[0]->error().code(), Code::kResourceExhausted);
  EXPECT_EQ(counters_.canary.canary.failed, 0u) << "memory is not the module's";
  why_ = Status(Code::kDataCorrupt, "in a file: a number that F16 does not hold");
  admit_without("c");
  settle();
  live_->look_at_experts();
  send();
  const Status error = sinks_[1]->error();
  EXPECT_EQ(error.code(), Code::kDataCorrupt) << error.to_string();
  EXPECT_THAT(error.message(), HasSubstr("bundles a, b: their average"));
  EXPECT_THAT(error.to_string(), Not(HasSubstr("later")));
  EXPECT_EQ(counters_.canary.canary.failed, 1u);
}

}  // namespace
}  // namespace chimera
