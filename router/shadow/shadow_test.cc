// What is sampled of what gates see, and that shares computed from it are those that routing gives.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "router/shadow/gate_sampler.h"
#include "router/shadow/shadow_shares.h"
#include "router/testing.h"

namespace chimera {
namespace {

using testing::entry;
using testing::make_table;
using testing::mask_of;
using testing::random_module;
using testing::random_values;
using testing::run_layers;
using testing::small_config;

constexpr int64_t kRows = 40;

class Shadow : public ::testing::Test {
 protected:
  Shadow() {
    base_ = random_module(rng_, config_, "backbone", 4, Attach::kReplace);
    one_ = random_module(rng_, config_, "one", 2, Attach::kAppend);
    two_ = random_module(rng_, config_, "two", 1, Attach::kReplace);
    x_ = random_values(rng_, kRows * config_.hidden_size, 1.0f);
    for (float& value : x_) value = bf16_to_f32(f32_to_bf16(value));
  }

  std::shared_ptr<const RouteView> view_of(const std::shared_ptr<const RoutingTable>& table,
                                           const ModuleMask& mask,
                                           std::vector<float> bias = {}) const {
    return *make_route_view(table, mask, std::move(bias));
  }
  /// Every row in every layer.
  GateSamples::Copy all() const {
    GateSamples::Copy out;
    for (int32_t layer = 0; layer < config_.num_layers; ++layer) {
      out.layers.insert(out.layers.end(), static_cast<size_t>(kRows), layer);
      for (const float value : x_) out.inputs.push_back(f32_to_bf16(value));
    }
    return out;
  }
  /// A pass in which every layer sees x_.
  void pass(GateSampler& sampler, std::span<RoutedSegment> segments) {
    sampler.begin_pass(segments, nullptr);
    std::vector<float> y(x_.size());
    for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
      ASSERT_TRUE(sampler.forward(layer, x_.data(), kRows, y.data()).ok());
    }
    sampler.end_pass();
  }

  const ModelConfig config_ = small_config(4, 2, true);
  std::mt19937 rng_{5};
  ThreadPool pool_{1};
  std::shared_ptr<Module> base_, one_, two_;
  std::vector<float> x_;
};

TEST_F(Shadow, SharesAreThoseOfRouting) {
  for (const float bias : {0.0f, 1.5f}) {
    Composition composition;
    composition.modules = {entry("one", bias), entry("two")};
    const auto table = make_table(config_, base_, {one_, two_}, composition);
    ASSERT_NE(table, nullptr);
    SequenceUsage usage;
    const auto view = view_of(table, table->all());
    RoutedSegment segment;
    segment.view = view.get();
    segment.rows = kRows;
    segment.usage = &usage;
    MoeRouter router(config_, best_kernels(), pool_);
    ASSERT_FALSE(run_layers(router, config_, {&segment, 1}, x_).empty());
    const auto shares = shadow_shares(table, all());
    ASSERT_TRUE(shares.ok());
    ASSERT_EQ(shares->size(), 3u);
    double sum = 0;
    for (const auto& [name, share] : *shares) {
      EXPECT_NEAR(share, usage.share(name), 1e-6) << name;
      EXPECT_GT(share, 0.0) << name;
      sum += share;
    }
    EXPECT_NEAR(sum, 1.0, 1e-6);
  }
}

TEST_F(Shadow, NoExpertIsNeeded) {
  auto gates = std::make_shared<Module>(*one_);
  for (auto& [layer, part] : gates->layers) {
    for (auto& expert : part.experts) expert = nullptr;
  }
  EXPECT_EQ(*shadow_shares(make_table(config_, base_, {gates}), all()),
            *shadow_shares(make_table(config_, base_, {one_}), all()));
  EXPECT_TRUE(shadow_shares(make_table(config_, base_, {one_}), {})->empty());
}

TEST_F(Shadow, EveryTokenIsSampledOnceUntilThereIsNoRoom) {
  const auto table = make_table(config_, base_, {one_});
  const auto view = view_of(table, table->all());
  RoutedSegment segment;
  segment.view = view.get();
  segment.rows = kRows;
  MoeRouter router(config_, best_kernels(), pool_);
  const uint64_t each = 32 * sizeof(uint16_t) + sizeof(int32_t);
  GateSamples samples(each * (kRows * 2 + 1), config_.hidden_size);
  ASSERT_EQ(samples.capacity(), static_cast<size_t>(kRows * 2 + 1));
  GateSampler sampler(config_, &router, &samples);
  pass(sampler, {&segment, 1});
  GateSamples::Copy copy = samples.copy();
  ASSERT_EQ(copy.layers.size(), static_cast<size_t>(kRows));
  // What was sampled is what went in, in the order of the rows.
  for (size_t row = 0; row < copy.layers.size(); ++row) {
    EXPECT_TRUE(copy.layers[row] == 0 || copy.layers[row] == 1);
    for (size_t h = 0; h < 32; ++h) {
      ASSERT_EQ(bf16_to_f32(copy.inputs[row * 32 + h]), x_[row * 32 + h]);
    }
  }
  EXPECT_NE(std::count(copy.layers.begin(), copy.layers.end(), 0), 0);
  EXPECT_NE(std::count(copy.layers.begin(), copy.layers.end(), 1), 0);
  for (int i = 0; i < 20; ++i) pass(sampler, {&segment, 1});
  EXPECT_TRUE(samples.full());
  EXPECT_EQ(samples.copy().layers.size(), samples.capacity());
}

TEST_F(Shadow, WhoChoosesForHimselfOrFailsIsNotSampled) {
  const auto table = make_table(config_, base_, {one_, two_});
  const std::vector<std::shared_ptr<const RouteView>> views{
      view_of(table, table->all()), view_of(table, mask_of(0b011)),
      view_of(table, table->all(), {0.0f, 1.0f, 0.0f}), view_of(table, table->all())};
  std::vector<RoutedSegment> segments(views.size());
  for (size_t i = 0; i < views.size(); ++i) {
    segments[i].view = views[i].get();
    segments[i].rows = kRows / 4;
  }
  // The last one sees something that is no number.
  x_[(kRows - 1) * 32] = std::numeric_limits<float>::quiet_NaN();
  MoeRouter router(config_, best_kernels(), pool_);
  GateSamples samples(1 << 20, config_.hidden_size);
  GateSampler sampler(config_, &router, &samples);
  pass(sampler, segments);
  EXPECT_TRUE(segments[3].poisoned);
  EXPECT_EQ(samples.copy().layers.size(), static_cast<size_t>(kRows / 4));

  GateSamples none(0, config_.hidden_size);
  GateSampler off(config_, &router, &none);
  pass(off, segments);
  EXPECT_TRUE(none.copy().layers.empty());
}

}  // namespace
}  // namespace chimera
