// select_experts against a slow reference in double, and its order independence bit for bit.
#include "router/gating.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

namespace chimera {
namespace {

constexpr float kMasked = -std::numeric_limits<float>::infinity();
constexpr uint32_t kSeed = 20260711;

std::vector<GateChoice> select(const std::vector<float>& logits, int64_t k, bool norm,
                               float* entropy = nullptr) {
  std::vector<GateChoice> out(static_cast<size_t>(k));
  const int n = select_experts({GateKind::kSoftmaxTopK, norm}, {logits, {}, {}}, k, out, entropy);
  out.resize(static_cast<size_t>(std::max(n, 0)));
  return out;
}

struct Reference {
  std::vector<size_t> order;
  std::vector<double> p;
  double entropy = 0.0;
};

Reference reference(const std::vector<float>& logits) {
  Reference r;
  r.p.resize(logits.size());
  double sum = 0.0;
  for (size_t i = 0; i < logits.size(); ++i) sum += r.p[i] = std::exp(double{logits[i]});
  for (double& p : r.p) {
    p /= sum;
    if (p > 0.0) r.entropy -= p * std::log(p);
  }
  r.order.resize(logits.size());
  std::iota(r.order.begin(), r.order.end(), size_t{0});
  std::stable_sort(r.order.begin(), r.order.end(),
                   [&](size_t a, size_t b) { return logits[a] > logits[b]; });
  return r;
}

std::vector<float> random_logits(std::mt19937& rng, size_t n, float scale) {
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> logits(n);
  for (float& l : logits) l = normal(rng);
  return logits;
}

TEST(Gating, MatchesADoubleReference) {
  SCOPED_TRACE(kSeed);
  std::mt19937 rng(kSeed);
  for (int round = 0; round < 500; ++round) {
    const size_t experts = 1 + rng() % 130;
    const int64_t k = 1 + static_cast<int64_t>(rng() % 9);
    const bool norm = rng() % 2 == 0;
    const std::vector<float> logits = random_logits(rng, experts, 4.0f);
    const Reference want = reference(logits);
    float entropy = -1.0f;
    const std::vector<GateChoice> got = select(logits, k, norm, &entropy);
    ASSERT_EQ(got.size(), std::min(experts, static_cast<size_t>(k)));
    double chosen = 0.0;
    for (size_t j = 0; j < got.size(); ++j) chosen += want.p[want.order[j]];
    for (size_t j = 0; j < got.size(); ++j) {
      const double p = want.p[want.order[j]];
      EXPECT_EQ(static_cast<size_t>(got[j].expert), want.order[j]);
      EXPECT_NEAR(double{got[j].weight}, norm ? p / chosen : p, 1e-7);
      EXPECT_NEAR(double{got[j].mass}, p / chosen, 1e-7);
    }
    EXPECT_NEAR(double{entropy}, want.entropy, 1e-5);
  }
}

TEST(Gating, MaskedExpertsChangeNoBit) {
  SCOPED_TRACE(kSeed);
  std::mt19937 rng(kSeed);
  for (int round = 0; round < 300; ++round) {
    const std::vector<float> logits = random_logits(rng, 24, 3.0f);
    std::vector<float> with_masked;
    std::vector<size_t> position;
    for (const float logit : logits) {
      while (rng() % 3 == 0) with_masked.push_back(kMasked);
      position.push_back(with_masked.size());
      with_masked.push_back(logit);
    }
    float entropy = 0.0f;
    float entropy_masked = 0.0f;
    const auto a = select(logits, 6, round % 2 == 0, &entropy);
    const auto b = select(with_masked, 6, round % 2 == 0, &entropy_masked);
    ASSERT_EQ(a.size(), b.size());
    EXPECT_EQ(std::bit_cast<uint32_t>(entropy), std::bit_cast<uint32_t>(entropy_masked));
    for (size_t j = 0; j < a.size(); ++j) {
      EXPECT_EQ(position[static_cast<size_t>(a[j].expert)], static_cast<size_t>(b[j].expert));
      EXPECT_EQ(std::bit_cast<uint32_t>(a[j].weight), std::bit_cast<uint32_t>(b[j].weight));
      EXPECT_EQ(std::bit_cast<uint32_t>(a[j].mass), std::bit_cast<uint32_t>(b[j].mass));
    }
  }
}

TEST(Gating, OrderOfExpertsChangesNoBit) {
  SCOPED_TRACE(kSeed);
  std::mt19937 rng(kSeed);
  for (int round = 0; round < 300; ++round) {
    const std::vector<float> logits = random_logits(rng, 40, 5.0f);
    std::vector<size_t> order(logits.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::shuffle(order.begin(), order.end(), rng);
    std::vector<float> shuffled;
    shuffled.reserve(order.size());
    for (const size_t i : order) shuffled.push_back(logits[i]);
    const auto a = select(logits, 8, round % 2 == 0);
    const auto b = select(shuffled, 8, round % 2 == 0);
    ASSERT_EQ(a.size(), b.size());
    for (size_t j = 0; j < a.size(); ++j) {
      EXPECT_EQ(static_cast<size_t>(a[j].expert), order[static_cast<size_t>(b[j].expert)]);
      EXPECT_EQ(std::bit_cast<uint32_t>(a[j].weight), std::bit_cast<uint32_t>(b[j].weight));
    }
  }
}

TEST(Gating, AFloatSumWouldDependOnTheOrder) {
  // Negative control of the two tests above: with such logits plain float sums do differ.
  std::mt19937 rng(kSeed);
  int different = 0;
  for (int round = 0; round < 100; ++round) {
    std::vector<float> logits = random_logits(rng, 40, 5.0f);
    const auto add = [](float sum, float l) { return sum + std::exp(l); };
    const float forward = std::accumulate(logits.begin(), logits.end(), 0.0f, add);
    const float backward = std::accumulate(logits.rbegin(), logits.rend(), 0.0f, add);
    different += forward != backward ? 1 : 0;
  }
  EXPECT_GT(different, 0);
}

TEST(Gating, TiesGoToTheLowerIndex) {
  const auto got = select({1.0f, 2.0f, 2.0f, 2.0f, 0.0f}, 2, true);
  ASSERT_EQ(got.size(), 2u);
  EXPECT_EQ(got[0].expert, 1);
  EXPECT_EQ(got[1].expert, 2);
  EXPECT_EQ(got[0].weight, 0.5f);
}

TEST(Gating, FewerThanKAndNone) {
  const auto one = select({kMasked, 3.0f, kMasked}, 2, true);
  ASSERT_EQ(one.size(), 1u);
  EXPECT_EQ(one[0].expert, 1);
  EXPECT_EQ(one[0].weight, 1.0f);  // exactly, as for k = 1
  float entropy = -1.0f;
  EXPECT_TRUE(select({kMasked, kMasked}, 2, true, &entropy).empty());
  EXPECT_EQ(entropy, 0.0f);
  EXPECT_TRUE(select({}, 2, true).empty());
}

TEST(Gating, NonFiniteLogitsAreRefused) {
  std::vector<GateChoice> out(2);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  for (const float bad : {nan, inf}) {
    const std::vector<float> logits{1.0f, bad, 2.0f};
    EXPECT_EQ(select_experts({GateKind::kSoftmaxTopK, true}, {logits, {}, {}}, 2, out, nullptr),
              -1);
  }
}

TEST(Gating, ExtremeLogitsStayFinite) {
  const float big = std::numeric_limits<float>::max();
  float entropy = -1.0f;
  const auto got = select({big, -big, 0.0f}, 3, false, &entropy);
  ASSERT_EQ(got.size(), 3u);
  EXPECT_EQ(got[0].weight, 1.0f);
  EXPECT_EQ(got[1].weight, 0.0f);
  EXPECT_TRUE(std::isfinite(entropy));
  EXPECT_GE(entropy, 0.0f);
}

}  // namespace
}  // namespace chimera
