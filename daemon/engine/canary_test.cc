// Two live tables: who begins on which, and what becomes of the canary's sequences when it ends.
#include "daemon/engine/canary.h"

#include <gmock/gmock.h>

#include "daemon/engine/engine.h"
#include "daemon/engine/testing.h"

namespace chimera {
namespace {

using namespace testing_support;

constexpr auto kCanaryPatience = 100s;
constexpr int64_t kLong = 300;  // tokens of a sequence that lives through a change
constexpr uint64_t kFirst = 0, kLast = ~uint64_t{0};  // lots

class Broken final : public Expert {
 public:
  Status forward(const float*, int64_t, float*, ExpertContext&) const override {
    return {Code::kUnavailable, "broken"};
  }
  uint64_t resident_bytes() const override { return 0; }
};

class EngineCanary : public testing::Test {
 protected:
  void SetUp() override {
    CHIMERA_NEEDS_GOLDEN();
    world = std::make_unique<World>();
    a = world->module("a");
    b = world->module("b");
    current = world->table(1, {a});
    engine = make(current);
  }
  std::unique_ptr<Engine> make(const std::shared_ptr<const RoutingTable>& table) {
    return must(Engine::create(world->backbone, nullptr, table, {}));
  }
  Status begin(double fraction) {
    return engine->publish_canary(world->table(2, {a, b}), fraction, kCanaryPatience);
  }
  static EngineRequest with_lot(EngineRequest request, uint64_t lot) {
    request.lot = lot;
    return request;
  }
  uint64_t epoch_of(uint64_t lot) {
    return submit(*engine, with_lot(greedy(prompt(1, 5), 2), lot))->done().epoch;
  }

  std::unique_ptr<World> world;
  std::shared_ptr<Module> a, b;
  std::shared_ptr<const RoutingTable> current;
  Unhurried unhurried;
  std::unique_ptr<Engine> engine;
};

TEST_F(EngineCanary, BeginsWithItsPartOfTheNewSequencesAndNoOther) {
  const EngineRequest request = greedy(prompt(2, 9), 40);
  const Stream on_current = stream_of(submit(*make(current), request)->done());
  const Stream on_canary = stream_of(submit(*make(world->table(2, {a, b})), request)->done());
  ASSERT_NE(on_current, on_canary);
  const auto running =
      submit(*engine, with_lot(greedy(prompt(3, 6), kLong), kFirst), nullptr, unhurried.from(1));
  ASSERT_TRUE(running->wait_tokens(1));
  ASSERT_TRUE(begin(0.25).ok());
  unhurried.go_on();
  EXPECT_EQ(stream_of(submit(*engine, with_lot(request, kFirst))->done()), on_canary);
  EXPECT_EQ(stream_of(submit(*engine, with_lot(request, kLast))->done()), on_current);
  EXPECT_EQ(epoch_of(kLast / 5), 2u);
  EXPECT_EQ(epoch_of(kLast / 3), 1u);
  EXPECT_EQ(running->done().epochs.size(), 1u) << "what was there before stays where it is";
  // Names are those of the table that the request falls on.
  EngineRequest only_b = greedy(prompt(1, 5), 2);
  only_b.modules.only = {"b"};
  EXPECT_EQ(submit(*engine, with_lot(only_b, kFirst))->done().epoch, 2u);
  EXPECT_EQ(engine->submit(with_lot(only_b, kLast), std::make_shared<Collector>()).status().code(),
            Code::kNotFound);
  const CanaryCounts counts = engine->canary();
  EXPECT_EQ(counts.epoch, 2u);
  EXPECT_EQ(counts.canary.requests, 3u);
  EXPECT_GE(counts.canary.tokens, 39u);
  EXPECT_EQ(counts.current.requests, 3u);
  EXPECT_EQ(begin(0.5).code(), Code::kFailedPrecondition) << "two canaries";
  EXPECT_EQ(engine->current().epoch, 1u);
}

TEST_F(EngineCanary, WhatFailsThroughItsModuleIsCountedAndConcernsNobodyElse) {
  const auto broken = world->module("b", "1", /*gate_bias=*/100.0f, [](int64_t, size_t, ExpertPtr) {
    return std::make_shared<Broken>();
  });
  ASSERT_TRUE(engine->publish_canary(world->table(2, {a, broken}), 0.5, kCanaryPatience).ok());
  const EngineRequest request = greedy(prompt(7, 6), 5);
  EXPECT_EQ(submit(*engine, with_lot(request, kFirst))->error().code(), Code::kUnavailable);
  EXPECT_EQ(submit(*engine, with_lot(request, kLast))->done().completion_tokens, 5);
  const CanaryCounts counts = engine->canary();
  EXPECT_EQ(counts.canary.requests, 1u);
  EXPECT_EQ(counts.canary.failed, 1u);
  EXPECT_EQ(counts.current.requests, 1u);
  EXPECT_EQ(counts.current.failed, 0u);
}

TEST_F(EngineCanary, WithdrawnItLeavesNothingAndItsSequencesGoOn) {
  ASSERT_TRUE(begin(1.0).ok());
  const std::weak_ptr<const Module> watch = b;
  const auto sink = submit(*engine, greedy(prompt(4, 7), kLong), nullptr, unhurried.from(3));
  ASSERT_TRUE(sink->wait_tokens(3));
  b.reset();
  ASSERT_TRUE(engine->withdraw_canary().ok());
  unhurried.go_on();
  EXPECT_TRUE(watch.expired()) << "something still holds the module";
  const DoneEvent done = sink->done();
  EXPECT_EQ(done.completion_tokens, kLong);
  ASSERT_EQ(done.epochs.size(), 2u);
  EXPECT_EQ(done.epochs[0].epoch, 2u);
  EXPECT_EQ(done.epochs[1].epoch, 1u);
  EXPECT_EQ(epoch_of(kFirst), 1u);
  EXPECT_EQ(engine->canary().epoch, 0u);
  EXPECT_TRUE(engine->withdraw_canary().ok()) << "there is none any more";
  EXPECT_TRUE(engine->publish(world->table(3, {a}), InFlight::kPin, kCanaryPatience).ok());
}

TEST_F(EngineCanary, PublishedForAllItsSequencesMoveAlongBitwise) {
  ASSERT_TRUE(begin(0.5).ok());
  const EngineRequest request = greedy(prompt(5, 8), kLong);
  const Stream quiet = stream_of(submit(*make(world->table(2, {a, b})), request)->done());
  const auto tries = submit(*engine, with_lot(request, kFirst), nullptr, unhurried.from(2));
  const auto stays = submit(*engine, with_lot(request, kLast), nullptr, unhurried.from(2));
  ASSERT_TRUE(tries->wait_tokens(2) && stays->wait_tokens(2));
  EXPECT_EQ(engine->publish(world->table(2, {a, b}), InFlight::kPin, kCanaryPatience).code(),
            Code::kFailedPrecondition)
      << "the canary's epoch is used up";
  ASSERT_TRUE(engine->publish(world->table(3, {a, b}), InFlight::kPin, kCanaryPatience).ok());
  unhurried.go_on();
  EXPECT_EQ(epoch_of(kLast), 3u);
  EXPECT_EQ(engine->canary().epoch, 0u);
  EXPECT_EQ(stream_of(tries->done()), quiet);
  EXPECT_EQ(tries->done().epoch, 3u);
  EXPECT_EQ(stays->done().epoch, 1u);
}

TEST_F(EngineCanary, ARevocationEndsIt) {
  ASSERT_TRUE(begin(1.0).ok());
  const auto sink = submit(*engine, greedy(prompt(6, 7), kLong), nullptr, unhurried.from(2));
  ASSERT_TRUE(sink->wait_tokens(2));
  ASSERT_TRUE(engine->revoke("b", world->table(3, {a})).ok());
  unhurried.go_on();
  EXPECT_EQ(sink->done().epochs.back().epoch, 3u);
  EXPECT_EQ(epoch_of(kFirst), 3u);
  EXPECT_EQ(engine->canary().epoch, 0u);
}

}  // namespace
}  // namespace chimera
