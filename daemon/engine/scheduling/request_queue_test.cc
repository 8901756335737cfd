#include "daemon/engine/scheduling/request_queue.h"

#include <gtest/gtest.h>

#include <string>
#include <thread>

namespace chimera {
namespace {

using namespace std::chrono_literals;

/// Counts terminal events.
class Sink final : public EventSink {
 public:
  void on_token(TokenEvent) override {}
  void on_done(DoneEvent) override { ++ends; }
  void on_error(Status) override { ++ends; }
  int ends = 0;
};

class RequestQueueTest : public testing::Test {
 protected:
  /// A request of `n` tokens; 0 when it was refused.
  RequestId add(size_t n = 1) {
    EngineRequest request;
    request.tokens.assign(n, 1);
    const Result<RequestId> id = queue_.add(std::move(request), sink_);
    refusal_ = id.status();
    return id.ok() ? *id : 0;
  }
  void end(PendingRequest& taken) {
    taken.ticket.done({});
    const RequestEnd end{taken.id, 1};
    queue_.ended({&end, 1});
  }
  /// Takes the next one, whatever its size, and ends it.
  RequestId finish_next() {
    auto next = queue_.take_next([](const PendingRequest&) { return true; });
    if (!next) return 0;
    end(*next);
    return next->id;
  }

  Doorbell bell_;
  RequestQueue queue_{3, &bell_};
  std::shared_ptr<Sink> sink_ = std::make_shared<Sink>();
  Status refusal_;
};

TEST_F(RequestQueueTest, FirstComeFirstServedAndNobodyOvertakes) {
  const RequestId large = add(100), small = add(1);
  const auto fits = [](const PendingRequest& p) { return p.request.tokens.size() < 10; };
  EXPECT_FALSE(queue_.take_next(fits)) << "a small request overtook the large one before it";
  EXPECT_EQ(finish_next(), large);
  const auto next = queue_.take_next(fits);
  ASSERT_TRUE(next);
  EXPECT_EQ(next->id, small);
  EXPECT_NE(small, large);
}

TEST_F(RequestQueueTest, IsBoundedAndCountsWhatItRefused) {
  for (int i = 0; i < 3; ++i) EXPECT_NE(add(), 0u);
  EXPECT_EQ(add(), 0u);
  EXPECT_EQ(refusal_.code(), Code::kResourceExhausted);
  EXPECT_EQ(refusal_.message(), "the queue is full: 3 requests wait (limit 3, max_queue)");
  queue_.count_refusal();
  EXPECT_EQ(queue_.counts().waiting, 3);
  EXPECT_EQ(queue_.counts().refused, 2u);
  finish_next();
  EXPECT_NE(add(), 0u);
}

TEST_F(RequestQueueTest, DrainWaitsForTheAnswersNotForAnEmptyQueue) {
  add();
  auto taken = queue_.take_next([](const PendingRequest&) { return true; });
  ASSERT_TRUE(taken);
  EXPECT_TRUE(queue_.idle());
  EXPECT_FALSE(queue_.drain(1ms)) << "its terminal event has not been sent";
  EXPECT_EQ(add(), 0u);
  EXPECT_EQ(refusal_.code(), Code::kUnavailable);
  std::thread engine([&] {
    std::this_thread::sleep_for(10ms);
    end(*taken);
  });
  EXPECT_TRUE(queue_.drain(100s));
  engine.join();
}

TEST_F(RequestQueueTest, CancelsReachOnlyWhoIsOutstanding) {
  const RequestId gone = add(), waiting = add();
  EXPECT_EQ(finish_next(), gone);
  queue_.cancel(gone);
  queue_.cancel(waiting);
  queue_.cancel(77);
  EXPECT_EQ(queue_.take_cancels(), std::unordered_set<RequestId>{waiting});
  EXPECT_TRUE(queue_.take_cancels().empty());
  // One that ends by itself first is not cancelled afterwards.
  queue_.cancel(waiting);
  finish_next();
  EXPECT_TRUE(queue_.take_cancels().empty());
  EXPECT_TRUE(queue_.idle());
}

TEST_F(RequestQueueTest, TakesWhatMatchesAndKeepsTheOrderOfBoth) {
  add(1);
  add(20);
  add(3);
  auto large = queue_.take_if([](const PendingRequest& p) { return p.request.tokens.size() > 2; });
  ASSERT_EQ(large.size(), 2u);
  EXPECT_EQ(large[0].request.tokens.size(), 20u);
  EXPECT_EQ(large[1].request.tokens.size(), 3u);
  EXPECT_EQ(queue_.counts().waiting, 1);
  EXPECT_TRUE(queue_.take_if([](const PendingRequest&) { return false; }).empty());
  // Their right to an answer went along.
  EXPECT_EQ(sink_->ends, 0);
  large.clear();
  EXPECT_EQ(sink_->ends, 2);
}

TEST_F(RequestQueueTest, ClosingGivesBackWhatWaits) {
  const RequestId first = add();
  add();
  auto rest = queue_.close();
  ASSERT_EQ(rest.size(), 2u);
  EXPECT_EQ(rest[0].id, first);
  EXPECT_TRUE(queue_.idle());
  EXPECT_EQ(add(), 0u);
  EXPECT_EQ(refusal_.code(), Code::kUnavailable);
}

// Each of these would hang if the ring before the wait were lost.
TEST_F(RequestQueueTest, RingsForWorkEvenBeforeSomebodyWaits) {
  const RequestId id = add();
  bell_.wait();
  queue_.cancel(id);
  bell_.wait();
  std::thread later([&] {
    std::this_thread::sleep_for(5ms);
    add();
  });
  bell_.wait();
  later.join();
}

}  // namespace
}  // namespace chimera
