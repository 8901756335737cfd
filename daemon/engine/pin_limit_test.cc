// Sequences that keep replaced modules longer than they may: memory comes back, no token is lost.
#include <gmock/gmock.h>

#include <atomic>

#include "daemon/engine/engine.h"
#include "daemon/engine/testing.h"

namespace chimera {
namespace {

using namespace testing_support;
using testing::HasSubstr;

class PinLimitTest : public testing::Test {
 protected:
  void SetUp() override {
    CHIMERA_NEEDS_GOLDEN();
    world_ = std::make_unique<World>();
    a_ = world_->module("a");
    b_ = world_->module("b");
    b2_ = world_->module("b", "2", 0.5f);
  }
  std::unique_ptr<Engine> make(std::shared_ptr<const RoutingTable> table, EngineOptions options) {
    return must(Engine::create(world_->backbone, nullptr, std::move(table), options));
  }
  Stream alone(std::shared_ptr<const RoutingTable> table, const EngineRequest& request) {
    return stream_of(submit(*make(std::move(table), {}), request)->done());
  }
  /// Whether nobody holds the module in the end.
  static bool goes(const std::weak_ptr<const Module>& module) {
    for (int i = 0; i < 6000 && !module.expired(); ++i) std::this_thread::sleep_for(10ms);
    return module.expired();
  }
  /// Whether all are on one epoch in the end.
  static bool on_one_epoch(const Engine& engine) {
    for (int i = 0; i < 6000 && engine.epochs().size() > 1; ++i) std::this_thread::sleep_for(10ms);
    return engine.epochs().size() == 1;
  }
  static EngineOptions limited(std::chrono::milliseconds limit, PinnedUntil then) {
    EngineOptions options;
    options.pin_limit = limit;
    options.pinned = then;
    return options;
  }

  std::unique_ptr<World> world_;
  std::shared_ptr<Module> a_, b_, b2_;
};

// The reference: what the old table gave up to the change, then the new one's continuation of
// prompt and these tokens.
TEST_F(PinLimitTest, AfterItSequencesGoOnOnTheCurrentModulesWithoutLosingAToken) {
  auto old_table = world_->table(1, {a_, b_});
  const auto new_table = world_->table(2, {a_, b2_});
  auto engine = make(old_table, limited(100ms, PinnedUntil::kRestart));
  constexpr int64_t kTokens = 1500;
  std::atomic<bool> moved{false};
  const auto sink =
      submit(*engine, greedy(prompt(5, 21), kTokens), nullptr, [&](const TokenEvent& event) {
        moved = moved || event.epoch == 2;
        if (!moved) slowly(event);
      });
  ASSERT_TRUE(sink->wait_tokens(3));
  ASSERT_TRUE(engine->publish(new_table, InFlight::kPin, 0ms).ok());
  const size_t published = sink->tokens().size();
  const std::weak_ptr<const Module> replaced = b_;
  b_.reset();
  old_table.reset();
  EXPECT_TRUE(goes(replaced)) << "the stream keeps the copy that was replaced";
  EXPECT_TRUE(on_one_epoch(*engine));
  const DoneEvent done = sink->done();
  EXPECT_EQ(engine->stats().restarted, 1u);
  ASSERT_EQ(done.completion_tokens, kTokens);
  const auto events = sink->tokens();
  size_t change = 0;
  while (change < events.size() && events[change].epoch == 1) ++change;
  ASSERT_GE(change, published) << "it was pinned until its time was up";
  ASSERT_LT(change, events.size());
  for (size_t i = change; i < events.size(); ++i) ASSERT_EQ(events[i].epoch, 2u);

  const auto same_as_old = world_->table(3, {a_, world_->module("b")});
  Stream joined = alone(same_as_old, greedy(prompt(5, 21), static_cast<int64_t>(change)));
  std::vector<int32_t> history = prompt(5, 21);
  history.insert(history.end(), joined.tokens.begin(), joined.tokens.end());
  const Stream after = alone(new_table, greedy(history, kTokens - static_cast<int64_t>(change)));
  joined.tokens.insert(joined.tokens.end(), after.tokens.begin(), after.tokens.end());
  joined.logprobs.insert(joined.logprobs.end(), after.logprobs.begin(), after.logprobs.end());
  EXPECT_EQ(stream_of(done), joined);
}

TEST_F(PinLimitTest, AfterItSequencesEndWhereThatIsAskedForAndOthersDoNot) {
  auto engine = make(world_->table(1, {a_, b_}), limited(50ms, PinnedUntil::kEnd));
  Engine::RequestId id = 0;
  const auto pinned = submit(*engine, greedy(prompt(1, 6), 1900), nullptr, slowly);
  EngineRequest without_b = greedy(prompt(2, 6), 1900);
  without_b.modules.exclude = {"b"};
  const auto other = submit(*engine, without_b, &id, slowly);
  ASSERT_TRUE(pinned->wait_tokens(1) && other->wait_tokens(1));
  ASSERT_TRUE(engine->publish(world_->table(2, {a_, b2_}), InFlight::kPin, 0ms).ok());
  const auto fresh = submit(*engine, greedy(prompt(3, 6), 1900), nullptr, slowly);
  const Status ended = pinned->error();
  EXPECT_EQ(ended.code(), Code::kUnavailable);
  EXPECT_THAT(ended.message(), HasSubstr("the modules of epoch 1, which it ran on, were replaced"));
  EXPECT_THAT(ended.message(), HasSubstr("memory.pin_limit"));
  EXPECT_GE(pinned->tokens().size(), 1u) << "what it had is not taken back";
  const std::weak_ptr<const Module> replaced = b_;
  b_.reset();
  EXPECT_TRUE(goes(replaced));
  EXPECT_EQ(engine->stats().failed, 1u);
  EXPECT_EQ(other->terminals() + fresh->terminals(), 0);
  ASSERT_TRUE(on_one_epoch(*engine));
  EXPECT_EQ(engine->epochs()[0].sequences, 2);
}

TEST_F(PinLimitTest, WhoseModulesAreCurrentIsNotLeftBehind) {
  auto engine = make(world_->table(1, {a_, b_}), limited(0ms, PinnedUntil::kEnd));
  const auto sink = submit(*engine, greedy(prompt(1, 6), 200), nullptr, slowly);
  ASSERT_TRUE(sink->wait_tokens(1));
  // Another bias is another number and keeps no other modules.
  ASSERT_TRUE(engine->publish(world_->table(2, {a_, b_}, 0.5f), InFlight::kPin, 0ms).ok());
  const DoneEvent done = sink->done();
  EXPECT_EQ(done.completion_tokens, 200);
  EXPECT_EQ(done.epoch, 1u);
}

TEST_F(PinLimitTest, AChangeThatWaitsForAnEpochGoesThroughOnceTheyAreOut) {
  EngineOptions options = limited(50ms, PinnedUntil::kRestart);
  options.max_live_epochs = 1;
  auto engine = make(world_->table(1, {a_}), options);
  const auto sink = submit(*engine, greedy(prompt(1, 6), 1900), nullptr, slowly);
  ASSERT_TRUE(sink->wait_tokens(1));
  // It is not replaced before the change, so nobody is left behind: the change is refused.
  EXPECT_FALSE(engine->publish(world_->table(2, {b_}), InFlight::kPin, 0ms).ok());
  options.max_live_epochs = 2;
  engine = make(world_->table(1, {a_}), options);
  const auto again = submit(*engine, greedy(prompt(1, 6), 1900), nullptr, slowly);
  ASSERT_TRUE(again->wait_tokens(1));
  ASSERT_TRUE(engine->publish(world_->table(2, {b_}), InFlight::kPin, 0ms).ok());
  const auto second = submit(*engine, greedy(prompt(2, 6), 1900), nullptr, slowly);
  ASSERT_TRUE(second->wait_tokens(1));
  EXPECT_TRUE(engine->publish(world_->table(3, {a_, b2_}), InFlight::kPin, 100s).ok());
  EXPECT_EQ(again->terminals() + second->terminals(), 0);
}

}  // namespace
}  // namespace chimera
