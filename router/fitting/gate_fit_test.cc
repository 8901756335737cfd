// Fitted rows against what made the samples, and against the definition of a minimum.
#include "router/fitting/gate_fit.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace chimera {
namespace {

constexpr int64_t kHidden = 6;

GateSamples samples_of(const std::vector<float>& row, float bias, size_t n) {
  std::mt19937 rng(5);
  std::normal_distribution<float> normal;
  std::uniform_real_distribution<float> uniform;
  GateSamples out;
  for (size_t i = 0; i < n; ++i) {
    float logit = bias;
    for (int64_t d = 0; d < kHidden; ++d) {
      // Features of very different sizes.
      out.x.push_back(normal(rng) * static_cast<float>(std::pow(10.0, static_cast<double>(d) - 3)));
      logit += row[static_cast<size_t>(d)] * out.x.back();
    }
    out.offset.push_back(normal(rng));
    const float p = 1 / (1 + std::exp(-(logit - out.offset.back())));
    out.wanted.push_back(uniform(rng) < p ? 1 : 0);
  }
  return out;
}

double loss(const GateSamples& s, const FittedGate& gate) {
  double sum[2] = {0, 0}, count[2] = {0, 0};
  for (size_t i = 0; i < s.wanted.size(); ++i) {
    double logit = gate.bias - s.offset[i];
    for (int64_t d = 0; d < kHidden; ++d) {
      logit +=
          double{gate.weight[static_cast<size_t>(d)]} * s.x[i * kHidden + static_cast<size_t>(d)];
    }
    sum[s.wanted[i]] += std::log1p(std::exp(s.wanted[i] != 0 ? -logit : logit));
    ++count[s.wanted[i]];
  }
  return (sum[0] / count[0] + sum[1] / count[1]) / 2;
}

TEST(GateFit, FindsTheRowThatMadeTheSamples) {
  const std::vector<float> row{1000, -150, 20, 1, -0.1f, 0};
  const GateSamples samples = samples_of(row, 0.5f, 40000);
  GateFitOptions options;
  options.ridge = 0;
  const FittedGate found = fit_gate(samples, kHidden, options);
  EXPECT_LT(found.steps, options.steps);
  for (size_t d = 0; d < row.size(); ++d) {
    // In units of the feature: some percent is what 40000 samples leave open.
    const double unit = std::pow(10.0, static_cast<double>(d) - 3);
    EXPECT_NEAR(found.weight[d] * unit, row[d] * unit, 0.06) << d;
  }
  EXPECT_NEAR(found.loss, loss(samples, found), 1e-5);
}

/// No step along any direction does better.
TEST(GateFit, IsAMinimum) {
  const GateSamples samples = samples_of({500, 100, 0, 2, 0, 0.001f}, -1, 3000);
  GateFitOptions options;
  options.ridge = 0;
  const FittedGate found = fit_gate(samples, kHidden, options);
  for (int64_t d = 0; d <= kHidden; ++d) {
    for (const float sign : {-1.0f, 1.0f}) {
      FittedGate other = found;
      const float step =
          sign * 0.02f / static_cast<float>(std::pow(10.0, static_cast<double>(d) - 3));
      (d < kHidden ? other.weight[static_cast<size_t>(d)] : other.bias) +=
          d < kHidden ? step : sign * 0.02f;
      EXPECT_GT(loss(samples, other), loss(samples, found)) << d << " " << sign;
    }
  }
}

TEST(GateFit, ThePriorMovesTheOdds) {
  const GateSamples samples = samples_of({0, 0, 0, 0, 0, 0}, 0, 2000);
  GateFitOptions options;
  const float plain = fit_gate(samples, kHidden, options).bias;
  options.prior = 1;
  EXPECT_NEAR(fit_gate(samples, kHidden, options).bias - plain, 1.0f, 0.2f);
}

TEST(LogSumExp, OfTheLargest) {
  const std::vector<float> values{1, 100, 99, -5};
  EXPECT_FLOAT_EQ(log_sum_exp(values, 1), 100);
  EXPECT_FLOAT_EQ(log_sum_exp(values, 2), 100 + std::log1p(std::exp(-1.0f)));
  EXPECT_FLOAT_EQ(log_sum_exp(values, 9), 100 + std::log1p(std::exp(-1.0f)));
  EXPECT_EQ(log_sum_exp({}, 2), -HUGE_VALF);
}

}  // namespace
}  // namespace chimera
