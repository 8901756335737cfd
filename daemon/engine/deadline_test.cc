// The deadline of a request, down to its experts: they may stop when nobody who shares the call can
// use it any more, and nobody else is harmed.
#include <atomic>
#include <thread>

#include "base/steady_time.h"
#include "daemon/engine/testing.h"

namespace chimera {
namespace {

using namespace testing_support;

/// Gives up at the deadline it is told, as a plugin does that asks whether it should go on; without
/// one it computes.
class Waiting final : public Expert {
 public:
  Waiting(ExpertPtr inner, std::atomic<int>& shared) : inner_(std::move(inner)), shared_(shared) {}
  Status forward(const float* x, int64_t rows, float* y, ExpertContext& ctx) const override {
    if (ctx.deadline_ns == 0) {
      ++shared_;
      return inner_->forward(x, rows, y, ctx);
    }
    std::this_thread::sleep_until(steady_time(ctx.deadline_ns));
    return {Code::kDeadlineExceeded, "given up"};
  }
  uint64_t resident_bytes() const override { return 0; }
  FailurePolicy on_failure() const override { return FailurePolicy::kDrop; }

 private:
  const ExpertPtr inner_;
  std::atomic<int>& shared_;
};

class EngineDeadline : public testing::Test {
 protected:
  void SetUp() override {
    CHIMERA_NEEDS_GOLDEN();
    world_ = std::make_unique<World>();
  }
  /// Module "a", which draws all tokens to itself and waits.
  std::shared_ptr<const Module> waiting() {
    return world_->module("a", "1", /*gate_bias=*/100.0f, [&](int64_t, size_t, ExpertPtr inner) {
      return std::make_shared<Waiting>(std::move(inner), calls_);
    });
  }
  std::unique_ptr<Engine> make() {
    return must(Engine::create(world_->backbone, nullptr, table_, {}));
  }

  std::unique_ptr<World> world_;
  std::shared_ptr<const RoutingTable> table_;
  std::atomic<int> calls_{0};  // that computed
};

TEST_F(EngineDeadline, ADeadlineReachesTheExpertsOfThoseWhoWaitNoLonger) {
  table_ = world_->table(1, {waiting(), world_->module("b")});
  EngineRequest without = greedy(prompt(1, 8), 30);
  without.modules.exclude = {"a"};
  const Stream quiet = stream_of(submit(*make(), without)->done());

  auto engine = make();
  const auto other = submit(*engine, without);
  EngineRequest late = greedy(prompt(2, 8), 30);
  late.deadline = std::chrono::steady_clock::now() + 300ms;
  const DoneEvent done = submit(*engine, late)->done();
  EXPECT_EQ(done.finish_reason, FinishReason::kDeadline);
  EXPECT_EQ(done.completion_tokens, 0);
  EXPECT_EQ(done.dropped_choices, 0u);
  EXPECT_GE(std::chrono::steady_clock::now(), *late.deadline);
  EXPECT_EQ(stream_of(other->done()), quiet);
  EXPECT_EQ(calls_, 0);
  EXPECT_EQ(engine->stats().failed, 0u);
}

TEST_F(EngineDeadline, AShortDeadlineDoesNotFailThoseWhoShareItsCalls) {
  table_ = world_->table(1, {waiting()});
  const EngineRequest patient = greedy(prompt(1, 8), 40);
  const Stream quiet = stream_of(submit(*make(), patient)->done());
  auto engine = make();
  // The first token of the patient one: from now on the two share every step.
  const auto sink = submit(*engine, patient, nullptr, slowly);
  ASSERT_TRUE(sink->wait_tokens(1));
  calls_ = 0;
  EngineRequest late = greedy(prompt(2, 8), 2000);
  late.deadline = std::chrono::steady_clock::now() + 30ms;
  const auto short_lived = submit(*engine, late);
  EXPECT_EQ(stream_of(sink->done()), quiet);
  EXPECT_EQ(sink->done().dropped_choices, 0u);
  EXPECT_EQ(short_lived->done().finish_reason, FinishReason::kDeadline);
  EXPECT_GT(calls_, 0);
}

}  // namespace
}  // namespace chimera
