// Deadlines and epochs of the rows, on their way to the experts.
//
// The rule: a call may be given up when nobody who has a row in it can use the result any more, so
// its deadline is the latest of its rows', and there is none when a row has none.
#include <gtest/gtest.h>

#include <thread>

#include "base/steady_time.h"
#include "router/testing.h"

namespace chimera {
namespace {

using namespace testing;  // NOLINT: the helpers of this room
using std::chrono::milliseconds;

constexpr uint64_t kFar = uint64_t{1} << 62;

/// Remembers what it was told, and copies its rows unless `answer` says otherwise.
class Watcher final : public Expert {
 public:
  struct Call {
    uint64_t deadline_ns;
    std::vector<uint64_t> epochs;
  };
  using Answer = std::function<Status(const ExpertContext&)>;
  Watcher(int64_t hidden, FailurePolicy policy) : hidden_(hidden), policy_(policy) {}

  Status forward(const float* x, int64_t rows, float* y, ExpertContext& ctx) const override {
    calls.push_back({ctx.deadline_ns, {ctx.row_epochs, ctx.row_epochs + rows}});
    std::copy_n(x, rows * hidden_, y);
    return answer ? answer(ctx) : Status();
  }
  uint64_t resident_bytes() const override { return 0; }
  FailurePolicy on_failure() const override { return policy_; }

  mutable std::vector<Call> calls;
  Answer answer;

 private:
  const int64_t hidden_;
  const FailurePolicy policy_;
};

/// A model of one layer and `experts` experts, of which all rows choose all; the first one watches.
struct Model {
  explicit Model(int64_t experts = 1, FailurePolicy policy = FailurePolicy::kFail)
      : config(one_layer(experts)), watcher(std::make_shared<Watcher>(config.hidden_size, policy)) {
    base = random_module(rng, config, "backbone", experts, Attach::kAppend);
    base->layers.at(0).experts[0] = watcher;
    for (uint64_t epoch = 7; epoch < 9; ++epoch) {
      auto table = RoutingTableBuilder(config, base).build(epoch, {}, {});
      EXPECT_TRUE(table.ok()) << table.status().to_string();
      views.push_back(*make_route_view(*table, (*table)->all(), {}));
    }
  }
  static ModelConfig one_layer(int64_t experts) {
    ModelConfig config = small_config(experts, experts, true);
    config.num_layers = 1;
    return config;
  }
  /// Two rows on the table of `view`.
  RoutedSegment segment(size_t view, uint64_t deadline_ns) {
    RoutedSegment s;
    s.view = views[view].get();
    s.rows = 2;
    s.deadline_ns = deadline_ns;
    return s;
  }
  std::vector<float> run(std::vector<RoutedSegment>& segments) {
    const auto rows = static_cast<int64_t>(2 * segments.size());
    MoeRouter router(config, best_kernels(), pool);
    return run_layers(router, config, segments, random_values(rng, rows * config.hidden_size, 1));
  }

  std::mt19937 rng{5};
  ModelConfig config;
  std::shared_ptr<Watcher> watcher;
  std::shared_ptr<Module> base;
  std::vector<std::shared_ptr<const RouteView>> views;  // of tables with the epochs 7 and 8
  ThreadPool pool{1};
};

TEST(MoeDeadline, TheLatestOfTheRowsCounts) {
  Model m;
  std::vector<RoutedSegment> segments = {m.segment(0, kFar), m.segment(1, kFar + 2),
                                         m.segment(0, kFar + 1)};
  m.run(segments);
  ASSERT_EQ(m.watcher->calls.size(), 1u);
  EXPECT_EQ(m.watcher->calls[0].deadline_ns, kFar + 2);
}

TEST(MoeDeadline, ARowWithoutOneKeepsItAway) {
  for (const size_t which : {0u, 1u, 2u}) {
    Model m;
    std::vector<RoutedSegment> segments = {m.segment(0, 1), m.segment(1, 1), m.segment(0, 1)};
    segments[which].deadline_ns = 0;
    m.run(segments);
    ASSERT_EQ(m.watcher->calls.size(), 1u) << which;
    EXPECT_EQ(m.watcher->calls[0].deadline_ns, 0u) << which;
    for (const RoutedSegment& s : segments) EXPECT_FALSE(s.poisoned);
  }
}

TEST(MoeDeadline, RowsSayTheirEpochs) {
  Model m;
  std::vector<RoutedSegment> segments = {m.segment(0, 0), m.segment(1, 0), m.segment(0, 0)};
  m.run(segments);
  ASSERT_EQ(m.watcher->calls.size(), 1u);  // one call for rows on two tables
  EXPECT_EQ(m.watcher->calls[0].epochs, (std::vector<uint64_t>{7, 7, 8, 8, 7, 7}));
}

/// As a plugin that asks chimera.cancel/1.
Status give_up_in_time(const ExpertContext& ctx) {
  EXPECT_NE(ctx.deadline_ns, 0u);
  std::this_thread::sleep_until(steady_time(ctx.deadline_ns));
  return {Code::kDeadlineExceeded, "given up"};
}

// Whatever its policy, an expert that stops when nobody waits has not failed: nobody gets a result
// that was computed without it.
TEST(MoeDeadline, GivingUpEndsTheLateAndHarmsNobodyElse) {
  for (const FailurePolicy policy : {FailurePolicy::kFail, FailurePolicy::kDrop}) {
    Model m(2, policy);
    m.watcher->answer = give_up_in_time;
    std::vector<RoutedSegment> segments;
    // On a busy machine the time may be over before the call, which is then not begun.
    for (milliseconds patience{20}; m.watcher->calls.empty() && patience < milliseconds(60'000);
         patience *= 10) {
      const uint64_t soon = steady_ns(std::chrono::steady_clock::now() + patience);
      segments = {m.segment(0, soon), m.segment(1, soon - 1)};
      m.run(segments);
    }
    EXPECT_EQ(m.watcher->calls.size(), 1u);
    for (const RoutedSegment& s : segments) {
      EXPECT_TRUE(s.late);
      EXPECT_TRUE(s.poisoned);
      EXPECT_EQ(s.dropped, 0u);
      EXPECT_EQ(s.failure.code(), Code::kDeadlineExceeded);
    }
  }
}

TEST(MoeDeadline, WhatIsLateBeforeTheCallIsNotBegun) {
  Model m(2);
  std::vector<RoutedSegment> segments = {m.segment(0, 1), m.segment(1, 2)};
  m.run(segments);
  EXPECT_TRUE(m.watcher->calls.empty());
  for (const RoutedSegment& s : segments) EXPECT_TRUE(s.late);
}

TEST(MoeDeadline, AnExpertSlowerThanItsOwnLimitHasFailed) {
  for (const uint64_t deadline : {uint64_t{0}, kFar}) {
    Model fails(2, FailurePolicy::kFail), drops(2, FailurePolicy::kDrop);
    for (Model* m : {&fails, &drops}) {
      m->watcher->answer = [](const ExpertContext&) {
        return Status(Code::kDeadlineExceeded, "took 3000 ms (expected at most 2000)");
      };
      std::vector<RoutedSegment> segments = {m->segment(0, deadline)};
      m->run(segments);
      EXPECT_FALSE(segments[0].late);
      EXPECT_EQ(segments[0].poisoned, m == &fails);
      EXPECT_EQ(segments[0].dropped, m == &drops ? 2u : 0u);
    }
  }
}

}  // namespace
}  // namespace chimera
