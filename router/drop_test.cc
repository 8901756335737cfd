// The policy `drop`: a row whose expert failed is what the definition says without it.
#include "router/drop.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "router/testing.h"

namespace chimera {
namespace {

using namespace testing;  // NOLINT: the helpers of this room

TEST(DropChoice, KeepsTheSumAndTheOrder) {
  std::vector<GateChoice> c = {{7, 0.5f, 0.625f}, {3, 0.2f, 0.25f}, {9, 0.1f, 0.125f}};
  ASSERT_EQ(drop_choice(c, 1), 2);
  EXPECT_EQ(c[0].expert, 7);
  EXPECT_EQ(c[1].expert, 9);
  // Two roundings to float per weight: relative 2^-23.
  EXPECT_NEAR(c[0].weight, 0.8 * 5.0 / 6.0, 1e-7);
  EXPECT_NEAR(c[1].weight, 0.8 * 1.0 / 6.0, 1e-7);
  EXPECT_NEAR(c[0].mass + c[1].mass, 1.0, 2e-7);
}

TEST(DropChoice, NothingLeft) {
  std::vector<GateChoice> one = {{7, 1.0f, 1.0f}};
  EXPECT_EQ(drop_choice(one, 0), 0);
  std::vector<GateChoice> weightless = {{7, 1.0f, 1.0f}, {8, 0.0f, 0.0f}};
  EXPECT_EQ(drop_choice(weightless, 0), 0);
}

enum class Sin { kFails, kNaN };

/// Fails, or gives NaN in the rows that begin with a negative number.
class BadExpert final : public Expert {
 public:
  BadExpert(Sin sin, FailurePolicy policy, int64_t hidden)
      : sin_(sin), policy_(policy), hidden_(hidden) {}
  Status forward(const float* x, int64_t rows, float* y, ExpertContext&) const override {
    if (sin_ == Sin::kFails) return {Code::kUnavailable, "the plugin is lost"};
    for (int64_t i = 0; i < rows * hidden_; ++i) y[i] = x[i];
    for (int64_t r = 0; r < rows; ++r) {
      if (x[r * hidden_] < 0.0f) y[r * hidden_ + 5] = NAN;
    }
    return {};
  }
  uint64_t resident_bytes() const override { return 0; }
  FailurePolicy on_failure() const override { return policy_; }

 private:
  const Sin sin_;
  const FailurePolicy policy_;
  const int64_t hidden_;
};

struct Model {
  explicit Model(bool norm, Sin sin, FailurePolicy policy = FailurePolicy::kDrop)
      : config(small_config(4, 2, norm)),
        base(random_module(rng, config, "backbone", 4, Attach::kAppend)) {
    bad = random_module(rng, config, "bad", 1, Attach::kAppend);
    for (auto& [layer, part] : bad->layers) {
      part.experts[0] = std::make_shared<BadExpert>(sin, policy, config.hidden_size);
    }
    // Strong enough to be chosen by about half of the rows.
    for (auto& [layer, part] : bad->layers) {
      for (float& v : part.gate_weight) v *= 2.0f;
    }
  }
  std::mt19937 rng{5};
  ModelConfig config;
  std::shared_ptr<Module> base, bad;
  ThreadPool pool{1};
};

/// What one layer must give for one row by the definition: choices of a trace, the failed expert
/// left out, the other weights scaled to the same sum.
std::vector<float> by_definition(Model& m, const RoutingTrace& trace, int64_t layer, int64_t row,
                                 const float* x, bool failed) {
  const int64_t hidden = m.config.hidden_size;
  std::vector<double> sum(static_cast<size_t>(hidden));
  std::vector<float> y(static_cast<size_t>(hidden));
  FloatBuffer scratch;
  ExpertContext ctx{best_kernels(), m.pool, scratch};
  const auto at = static_cast<size_t>((layer * trace.rows + row) * trace.k);
  double before = 0, after = 0;
  for (size_t j = 0; j < static_cast<size_t>(trace.k); ++j) {
    before += static_cast<double>(trace.weights[at + j]);
    if (trace.ids[at + j] != 4 || !failed) after += static_cast<double>(trace.weights[at + j]);
  }
  for (size_t j = 0; j < static_cast<size_t>(trace.k); ++j) {
    const int32_t slot = trace.ids[at + j];
    if (slot == 4 && failed) continue;
    const auto& from = slot == 4 ? m.bad->layers.at(layer).experts[0]
                                 : m.base->layers.at(layer).experts[static_cast<size_t>(slot)];
    EXPECT_TRUE(from->forward(x, 1, y.data(), ctx).ok());
    for (size_t i = 0; i < y.size(); ++i) {
      sum[i] +=
          static_cast<double>(trace.weights[at + j]) * before / after * static_cast<double>(y[i]);
    }
  }
  return {sum.begin(), sum.end()};
}

class Drop : public ::testing::TestWithParam<std::tuple<bool, Sin>> {};

TEST_P(Drop, RowsGoOnWithoutTheFailedExpert) {
  const auto [norm, sin] = GetParam();
  Model m(norm, sin);
  const auto table = make_table(m.config, m.base, {m.bad});
  ASSERT_NE(table, nullptr);
  const auto view = *make_route_view(table, table->all(), {});
  constexpr int64_t kRows = 40;
  const int64_t hidden = m.config.hidden_size;
  const std::vector<float> x = random_values(m.rng, kRows * hidden, 1.0f);
  RoutingTrace trace;
  RoutedSegment segment;
  segment.view = view.get();
  segment.rows = kRows;
  segment.trace = &trace;
  MoeRouter router(m.config, best_kernels(), m.pool);
  const auto y = run_layers(router, m.config, {&segment, 1}, x);
  ASSERT_FALSE(segment.poisoned) << segment.failure.to_string();
  uint64_t dropped = 0, kept = 0;
  for (int64_t layer = 0; layer < m.config.num_layers; ++layer) {
    for (int64_t row = 0; row < kRows; ++row) {
      const float* in = x.data() + row * hidden;
      const bool failed = sin == Sin::kFails || in[0] < 0.0f;
      const auto at = static_cast<size_t>((layer * trace.rows + row) * trace.k);
      const bool chose = trace.ids[at] == 4 || trace.ids[at + 1] == 4;
      ++(chose && failed ? dropped : kept);
      const auto expected = by_definition(m, trace, layer, row, in, failed);
      const float* got = y.data() + (layer * kRows + row) * hidden;
      for (size_t i = 0; i < expected.size(); ++i) {
        // Sums of two products of order 1 in float: a few ulp of 1.
        ASSERT_NEAR(got[i], expected[i], 1e-5) << "layer " << layer << ", row " << row;
      }
    }
  }
  EXPECT_EQ(segment.dropped, dropped);
  EXPECT_GT(dropped, 5u);
  EXPECT_GT(kept, 5u);
}

INSTANTIATE_TEST_SUITE_P(Router, Drop,
                         ::testing::Combine(::testing::Bool(),
                                            ::testing::Values(Sin::kFails, Sin::kNaN)));

TEST(MoeDrop, ARowIsTheSameAloneAndInABatch) {
  Model m(true, Sin::kFails);
  const auto table = make_table(m.config, m.base, {m.bad});
  const auto view = *make_route_view(table, table->all(), {});
  const auto plain = *make_route_view(table, {0}, {});
  const int64_t hidden = m.config.hidden_size;
  const std::vector<float> x = random_values(m.rng, 12 * hidden, 1.0f);
  MoeRouter router(m.config, best_kernels(), m.pool);
  std::vector<RoutedSegment> segments(3);
  for (size_t i = 0; i < 3; ++i) {
    segments[i].view = i == 1 ? plain.get() : view.get();
    segments[i].rows = 4;
  }
  const auto together = run_layers(router, m.config, segments, x);
  EXPECT_EQ(segments[1].dropped, 0u);
  for (int64_t row = 0; row < 12; ++row) {
    RoutedSegment alone;
    alone.view = segments[static_cast<size_t>(row / 4)].view;
    alone.rows = 1;
    const std::vector<float> one(x.begin() + row * hidden, x.begin() + (row + 1) * hidden);
    const auto y = run_layers(router, m.config, {&alone, 1}, one);
    for (int64_t layer = 0; layer < m.config.num_layers; ++layer) {
      EXPECT_EQ(
          std::memcmp(y.data() + layer * hidden, together.data() + (layer * 12 + row) * hidden,
                      static_cast<size_t>(hidden) * sizeof(float)),
          0)
          << row;
    }
  }
}

TEST(MoeDrop, WithNothingLeftTheRowFails) {
  Model m(true, Sin::kFails);
  Composition composition;
  composition.top_k = 1;
  composition.modules.push_back(entry("bad", 100.0f));  // always the first choice
  const auto table = make_table(m.config, m.base, {m.bad}, composition);
  ASSERT_NE(table, nullptr);
  const auto view = *make_route_view(table, table->all(), {});
  const auto plain = *make_route_view(table, {0}, {});
  std::vector<RoutedSegment> segments(2);
  segments[0].view = view.get();
  segments[1].view = plain.get();
  for (auto& s : segments) s.rows = 1;
  MoeRouter router(m.config, best_kernels(), m.pool);
  run_layers(router, m.config, segments, random_values(m.rng, 2 * m.config.hidden_size, 1.0f));
  EXPECT_TRUE(segments[0].poisoned);
  EXPECT_NE(segments[0].failure.message().find("the plugin is lost, and no other expert is left"),
            std::string::npos)
      << segments[0].failure.message();
  EXPECT_FALSE(segments[1].poisoned);
}

TEST(MoeDrop, ThePolicyFailStillFails) {
  Model m(true, Sin::kFails, FailurePolicy::kFail);
  const auto table = make_table(m.config, m.base, {m.bad});
  const auto view = *make_route_view(table, table->all(), {});
  RoutedSegment segment;
  segment.view = view.get();
  segment.rows = 20;
  MoeRouter router(m.config, best_kernels(), m.pool);
  run_layers(router, m.config, {&segment, 1},
             random_values(m.rng, 20 * m.config.hidden_size, 1.0f));
  EXPECT_TRUE(segment.poisoned);
  EXPECT_EQ(segment.dropped, 0u);
}

}  // namespace
}  // namespace chimera
