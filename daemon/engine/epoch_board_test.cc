// The board with the test in the place of the engine thread; epochs_test.cc has it under streams.
#include "daemon/engine/epoch_board.h"

#include <gtest/gtest.h>

#include <future>
#include <thread>

#include "daemon/engine/testing.h"

namespace chimera {
namespace {

using namespace testing_support;

class EpochBoardTest : public testing::Test {
 protected:
  void SetUp() override {
    CHIMERA_NEEDS_GOLDEN();
    world_ = std::make_unique<World>();
    KvCacheOptions cache;
    cache.blocks = 8;
    live_ = std::make_unique<LiveSequences>(
        LiveSequences::Options{.max_sequences = 2, .max_context = 64, .prefill_chunk = 16},
        must(KvCache::create(world_->config, cache)), &counters_, &reaper_);
    board_ =
        std::make_unique<EpochBoard>(world_->table(1, {world_->module("a")}), 1, &bell_, &reaper_);
  }

  std::future<Status> publish(std::shared_ptr<const RoutingTable> table,
                              std::chrono::milliseconds timeout = 100s) {
    return std::async(std::launch::async, [this, table = std::move(table), timeout]() mutable {
      return board_->publish(std::move(table), InFlight::kPin, timeout);
    });
  }
  std::future<Status> revoke(const std::string& name, std::shared_ptr<const RoutingTable> table) {
    return std::async(std::launch::async, [this, name, table = std::move(table)]() mutable {
      return board_->revoke(name, std::move(table));
    });
  }
  /// One turn of the engine thread, once something is there to do.
  void carry_out() {
    bell_.wait();
    EXPECT_TRUE(board_->carry_out(*live_, queue_));
  }
  /// A sequence on the current table that never ends.
  void start_sequence() {
    EngineRequest request = greedy(prompt(1, 5), 20);
    ASSERT_TRUE(queue_.add(std::move(request), std::make_shared<Collector>()).ok());
    bell_.wait();
    auto next = queue_.take_next([](const PendingRequest&) { return true; });
    live_->admit(std::move(*next), board_->current());
  }
  void TearDown() override {
    if (live_ == nullptr) return;
    for (const auto& sequence : live_->all()) live_->end(*sequence, FinishReason::kCancelled);
    live_->sweep();
    live_->send_endings();
  }

  std::unique_ptr<World> world_;
  Doorbell bell_;
  Reaper reaper_;
  EngineStats counters_;
  RequestQueue queue_{4, &bell_};
  std::unique_ptr<LiveSequences> live_;
  std::unique_ptr<EpochBoard> board_;
};

TEST_F(EpochBoardTest, AChangeIsAnsweredWhenItIsAcknowledgedAndTheOldTableIsGone) {
  const std::weak_ptr<const RoutingTable> old = board_->table();
  auto answer = publish(world_->table(2, {world_->module("b")}));
  carry_out();
  EXPECT_EQ(board_->current()->epoch(), 2u);
  EXPECT_EQ(board_->with_table([](const RoutingTable& table) { return table.epoch(); }), 2u);
  EXPECT_EQ(answer.wait_for(20ms), std::future_status::timeout);
  board_->acknowledge();
  EXPECT_TRUE(answer.get().ok());
  EXPECT_TRUE(old.expired());
  EXPECT_TRUE(board_->idle());
}

TEST_F(EpochBoardTest, EpochsNeverGoBack) {
  auto answer = publish(world_->table(1, {}));
  carry_out();
  board_->acknowledge();
  EXPECT_EQ(answer.get().message(), "epoch 1 cannot follow epoch 1, which was published meanwhile");
}

TEST_F(EpochBoardTest, ARevocationOvertakesAPublishThatWaits) {
  start_sequence();
  auto waiting = publish(world_->table(2, {world_->module("b")}));
  bell_.wait();
  EXPECT_FALSE(board_->carry_out(*live_, queue_)) << "a second epoch, where one may be in use";
  EXPECT_FALSE(board_->idle());
  auto revoked = revoke("a", world_->table(3, {}));
  carry_out();
  board_->acknowledge();
  EXPECT_TRUE(revoked.get().ok());
  EXPECT_EQ(waiting.get().code(), Code::kFailedPrecondition);
  EXPECT_EQ(counters_.restarted, 1u);
  EXPECT_EQ(live_->all()[0]->view->table->epoch(), 3u);
}

TEST_F(EpochBoardTest, AfterItsTimeAWaitingPublishSaysForWhom) {
  start_sequence();
  auto late = publish(world_->table(2, {world_->module("b")}), 0ms);
  carry_out();
  board_->acknowledge();
  EXPECT_EQ(late.get().message(),
            "publishing epoch 2 would leave epochs of 2 sets of modules in use (limit 1, "
            "max_live_epochs); the oldest, epoch 1, is held by 1 sequence");
}

TEST_F(EpochBoardTest, ClosingRefusesWhatWaitsAndWhatComes) {
  start_sequence();
  auto waiting = publish(world_->table(2, {world_->module("b")}));
  bell_.wait();
  EXPECT_FALSE(board_->carry_out(*live_, queue_));
  board_->close();
  EXPECT_EQ(waiting.get().code(), Code::kUnavailable);
  EXPECT_EQ(publish(world_->table(3, {})).get().code(), Code::kUnavailable);
}

}  // namespace
}  // namespace chimera
