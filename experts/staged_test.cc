// Experts run together: the bits of each alone, every range once, stages in order.
#include "experts/staged.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>

#include "experts/executor.h"
#include "experts/feed_forward.h"

namespace chimera {
namespace {

constexpr int64_t kHidden = 64;

std::vector<float> random_values(std::mt19937& rng, int64_t n) {
  std::normal_distribution<float> normal(0.0f, 0.5f);
  std::vector<float> values(static_cast<size_t>(n));
  for (float& v : values) v = normal(rng);
  return values;
}

Matrix random_matrix(std::mt19937& rng, int64_t rows, int64_t cols) {
  auto values = std::make_shared<std::vector<float>>(random_values(rng, rows * cols));
  return {values->data(), WeightFormat::kF32, rows, cols, values};
}

TEST(Staged, TogetherAreTheBitsOfEachAlone) {
  std::mt19937 rng(11);
  struct Case {
    int64_t width, rows;
  };
  const std::vector<Case> cases = {{96, 1}, {500, 7}, {16, 3}, {1024, 40}, {96, 2}};
  std::vector<std::shared_ptr<const Expert>> experts;
  std::vector<std::vector<float>> x, alone, together;
  for (const Case& c : cases) {
    experts.push_back(make_swiglu_expert(random_matrix(rng, c.width, kHidden),
                                         random_matrix(rng, c.width, kHidden),
                                         random_matrix(rng, kHidden, c.width)));
    x.push_back(random_values(rng, c.rows * kHidden));
    alone.emplace_back(x.back().size(), NAN);
    together.emplace_back(x.back().size(), NAN);
  }
  ThreadPool one(1), three(3);
  FloatBuffer scratch;
  std::vector<StagedCall> calls;
  for (size_t i = 0; i < cases.size(); ++i) {
    ExpertContext context{best_kernels(), one, scratch};
    ASSERT_TRUE(experts[i]->forward(x[i].data(), cases[i].rows, alone[i].data(), context).ok());
    ASSERT_NE(experts[i]->feed_forward(), nullptr);
    calls.push_back({experts[i]->feed_forward(), x[i].data(), cases[i].rows, together[i].data()});
  }
  ExpertContext context{best_kernels(), three, scratch};
  run_staged(calls, context);
  for (size_t i = 0; i < cases.size(); ++i) {
    EXPECT_EQ(std::memcmp(alone[i].data(), together[i].data(), x[i].size() * sizeof(float)), 0)
        << "expert " << i;
  }
}

/// Counts in y how often each output ran, and notes whether all of the stage before had run by
/// then. For a pool of one thread.
class Noting final : public StagedExpert {
 public:
  Noting(int stages, int64_t outputs, int64_t work)
      : stages_(stages), outputs_(outputs), work_(work) {}
  int stages() const override { return stages_; }
  Stage stage(int, int64_t) const override { return {outputs_, work_}; }
  int64_t scratch_floats(int64_t) const override { return 1; }
  void run_stage(int index, const Kernels&, const float*, int64_t, float*, float* y, int64_t begin,
                 int64_t end) const override {
    if (finished_ != index * outputs_ + done_in_stage(index)) in_order = false;
    for (int64_t i = begin; i < end; ++i) y[i] += 1.0f;
    done_[static_cast<size_t>(index)] += end - begin;
    finished_ += end - begin;
    longest = std::max(longest, end - begin);
  }
  uint64_t resident_bytes() const override { return 0; }

  mutable bool in_order = true;
  mutable int64_t longest = 0;

 private:
  int64_t done_in_stage(int index) const { return done_[static_cast<size_t>(index)]; }
  const int stages_;
  const int64_t outputs_, work_;
  mutable int64_t finished_ = 0;
  mutable int64_t done_[4] = {};
};

TEST(Staged, EveryOutputOncePerStageAndStagesInOrder) {
  const Noting first(1, 100, 10), second(3, 5000, 1 << 10), third(2, 17, 1 << 20);
  ThreadPool pool(1);
  FloatBuffer scratch;
  ExpertContext context{best_kernels(), pool, scratch};
  std::vector<float> y1(100), y2(5000), y3(17);
  const float x = 0.0f;
  const std::vector<StagedCall> calls = {
      {&first, &x, 1, y1.data()}, {&second, &x, 1, y2.data()}, {&third, &x, 1, y3.data()}};
  run_staged(calls, context);
  EXPECT_EQ(y1, std::vector<float>(100, 1.0f));
  EXPECT_EQ(y2, std::vector<float>(5000, 3.0f));
  EXPECT_EQ(y3, std::vector<float>(17, 2.0f));
  for (const Noting* expert : {&first, &second, &third}) EXPECT_TRUE(expert->in_order);
  // 23 M multiply-adds a stage: an eighth of them is about 2.8 K outputs of the second.
  EXPECT_LT(second.longest, 5000);
  EXPECT_EQ(first.longest, 100) << "a small loop is not worth two shares";
}

TEST(Staged, TheirExecutorRunsWhatIsNotDoneWithinItsScratchMemory) {
  // Two of the first fit into 4 MiB, three do not; the last does not at all.
  std::mt19937 rng(12);
  std::vector<std::shared_ptr<const Expert>> experts;
  std::vector<std::vector<float>> x, expected, found;
  const std::vector<int64_t> rows = {200, 200, 200, 1, 600};
  ThreadPool pool(2);
  FloatBuffer scratch, alone;
  std::vector<ExpertCall> calls(rows.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    experts.push_back(make_swiglu_expert(random_matrix(rng, 1024, kHidden),
                                         random_matrix(rng, 1024, kHidden),
                                         random_matrix(rng, kHidden, 1024)));
    x.push_back(random_values(rng, rows[i] * kHidden));
    expected.emplace_back(x.back().size(), NAN);
    found.emplace_back(x.back().size(), 7.0f);
    ExpertContext context{best_kernels(), pool, alone};
    ASSERT_TRUE(experts[i]->forward(x[i].data(), rows[i], expected[i].data(), context).ok());
    calls[i].expert = &experts[i]->current();
    calls[i].x = x[i].data();
    calls[i].rows = rows[i];
    calls[i].y = found[i].data();
    calls[i].deadline_ns = 1;  // has passed: weights are not asked
  }
  calls[3].end({Code::kUnavailable, "lost"});
  expected[3].assign(expected[3].size(), 7.0f);
  ExpertExecutor& executor = experts[0]->executor();
  EXPECT_EQ(executor.place(), ExecutorPlace::kPool);
  ExpertContext context{best_kernels(), pool, scratch};
  EXPECT_EQ(executor.start(calls, context), nullptr);
  executor.run(calls, context);
  for (size_t i = 0; i < rows.size(); ++i) {
    EXPECT_TRUE(calls[i].done);
    EXPECT_EQ(calls[i].status.code(), i == 3 ? Code::kUnavailable : Code::kOk);
    EXPECT_EQ(found[i], expected[i]) << "call " << i;
  }
  EXPECT_EQ(scratch.size(), size_t{2} * 600 * 1024) << "of the largest call, and of no more";
}

TEST(Staged, NoCallsIsNoWork) {
  ThreadPool pool(2);
  FloatBuffer scratch;
  ExpertContext context{best_kernels(), pool, scratch};
  run_staged({}, context);
  EXPECT_TRUE(scratch.empty());
}

}  // namespace
}  // namespace chimera
