// Experts against a slow computation in double: kinds, biases, quantised weights, any batch.
#include "experts/expert.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

namespace chimera {
namespace {

constexpr int64_t kHidden = 64;
constexpr int64_t kWidth = 96;

std::vector<float> random_values(std::mt19937& rng, int64_t n, float scale) {
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> values(static_cast<size_t>(n));
  for (float& v : values) v = normal(rng);
  return values;
}

/// A weight with the numbers it stands for.
struct TestWeight {
  ExpertWeight weight;
  std::vector<float> wide;
};

TestWeight plain(std::mt19937& rng, int64_t rows, int64_t cols) {
  auto values = std::make_shared<std::vector<float>>(random_values(rng, rows * cols, 0.4f));
  TestWeight out;
  out.weight.matrix = {values->data(), WeightFormat::kF32, rows, cols, values};
  out.wide = *values;
  return out;
}

/// MXFP4 rows that alternate with others, as gate and up do in gpt_oss.
TestWeight mxfp4(std::mt19937& rng, int64_t rows, int64_t cols) {
  auto codes = std::make_shared<std::vector<uint8_t>>(static_cast<size_t>(2 * rows * cols / 2));
  auto scales = std::make_shared<std::vector<uint8_t>>(static_cast<size_t>(2 * rows * cols / 32));
  for (uint8_t& code : *codes) code = static_cast<uint8_t>(rng());
  for (uint8_t& scale : *scales) scale = static_cast<uint8_t>(122 + rng() % 4);
  QuantMatrix m;
  m.format = QuantMatrix::Format::kMxfp4;
  m.rows = rows;
  m.cols = cols;
  m.codes = reinterpret_cast<const std::byte*>(codes->data());
  m.code_step = cols;  // every other row of cols / 2 bytes
  m.scales = reinterpret_cast<const std::byte*>(scales->data());
  m.scale_step = 2 * (cols / 32);
  m.owner = codes;
  m.scale_owner = scales;
  TestWeight out;
  out.wide.resize(static_cast<size_t>(rows * cols));
  m.widen(0, rows, out.wide.data());
  out.weight.quantised = m;
  return out;
}

struct TestExpert {
  ExpertKind kind;
  TestWeight gate, up, down;
  std::vector<float> gate_bias, up_bias, down_bias;

  std::shared_ptr<const Expert> make() const {
    return make_expert(kind, {gate.weight, up.weight, down.weight, gate_bias, up_bias, down_bias});
  }
};

double bias_at(const std::vector<float>& bias, int64_t i) {
  return bias.empty() ? 0.0 : double{bias[static_cast<size_t>(i)]};
}

/// One row, in double; `bound` receives the largest sum of absolute terms of an output.
std::vector<double> reference(const TestExpert& e, const float* x, double* bound) {
  const auto dot = [](const std::vector<float>& w, int64_t row, int64_t cols, const auto* v) {
    double sum = 0.0;
    for (int64_t i = 0; i < cols; ++i) sum += double{w[static_cast<size_t>(row * cols + i)]} * v[i];
    return sum;
  };
  std::vector<double> a;
  for (int64_t i = 0; i < kWidth; ++i) {
    double g = dot(e.gate.wide, i, kHidden, x) + bias_at(e.gate_bias, i);
    double u = dot(e.up.wide, i, kHidden, x) + bias_at(e.up_bias, i);
    if (e.kind == ExpertKind::kSwiGlu) {
      a.push_back(g / (1.0 + std::exp(-g)) * u);
    } else {
      g = std::min(g, 7.0);
      u = std::clamp(u, -7.0, 7.0);
      a.push_back((u + 1.0) * g / (1.0 + std::exp(-1.702 * g)));
    }
  }
  std::vector<double> y;
  *bound = 0.0;
  for (int64_t i = 0; i < kHidden; ++i) {
    y.push_back(dot(e.down.wide, i, kWidth, a.data()) + bias_at(e.down_bias, i));
    double terms = std::abs(bias_at(e.down_bias, i));
    for (int64_t j = 0; j < kWidth; ++j) {
      terms += std::abs(double{e.down.wide[static_cast<size_t>(i * kWidth + j)]} *
                        a[static_cast<size_t>(j)]);
    }
    *bound = std::max(*bound, terms);
  }
  return y;
}

TestExpert random_expert(std::mt19937& rng, ExpertKind kind, bool biases, bool quantised) {
  const auto weight = quantised ? mxfp4 : plain;
  TestExpert e{kind,
               weight(rng, kWidth, kHidden),
               weight(rng, kWidth, kHidden),
               weight(rng, kHidden, kWidth),
               {},
               {},
               {}};
  if (biases) {
    e.gate_bias = random_values(rng, kWidth, 2.0f);
    e.up_bias = random_values(rng, kWidth, 2.0f);
    e.down_bias = random_values(rng, kHidden, 2.0f);
  }
  return e;
}

std::vector<float> run(const Expert& expert, const std::vector<float>& x, int threads) {
  ThreadPool pool(threads);
  FloatBuffer scratch;
  ExpertContext context{best_kernels(), pool, scratch};
  std::vector<float> y(x.size());
  const auto rows = static_cast<int64_t>(x.size()) / kHidden;
  EXPECT_TRUE(expert.forward(x.data(), rows, y.data(), context).ok());
  return y;
}

TEST(Experts, MatchADoubleReference) {
  std::mt19937 rng(7);
  for (const ExpertKind kind : {ExpertKind::kSwiGlu, ExpertKind::kClampedSwiGlu}) {
    for (const bool biases : {false, true}) {
      for (const bool quantised : {false, true}) {
        const TestExpert e = random_expert(rng, kind, biases, quantised);
        const std::vector<float> x = random_values(rng, 5 * kHidden, 1.5f);  // some clamp
        const std::vector<float> y = run(*e.make(), x, 1);
        for (int64_t r = 0; r < 5; ++r) {
          double bound = 0.0;
          const std::vector<double> want = reference(e, x.data() + r * kHidden, &bound);
          for (int64_t i = 0; i < kHidden; ++i) {
            // Two sums of up to 96 terms and an exp, each within a few float roundings of its
            // terms; the first sum's error passes through a slope below 1.2 times the other factor.
            EXPECT_NEAR(y[static_cast<size_t>(r * kHidden + i)], want[static_cast<size_t>(i)],
                        64 * 6e-8 * (bound + 1.0));
          }
        }
      }
    }
  }
}

TEST(Experts, ARowDoesNotDependOnItsBatchOrTheThreads) {
  std::mt19937 rng(8);
  for (const bool quantised : {false, true}) {
    const TestExpert e = random_expert(rng, ExpertKind::kClampedSwiGlu, true, quantised);
    const auto expert = e.make();
    const std::vector<float> x = random_values(rng, 9 * kHidden, 1.0f);
    const std::vector<float> whole = run(*expert, x, 3);
    for (size_t r = 0; r < 9; ++r) {
      const auto begin = static_cast<ptrdiff_t>(r * kHidden);
      const std::vector<float> one =
          run(*expert, {x.begin() + begin, x.begin() + begin + kHidden}, 1);
      EXPECT_EQ(std::memcmp(one.data(), whole.data() + begin, one.size() * sizeof(float)), 0);
    }
  }
}

TEST(Experts, QuantisedOnesTakeTheMemoryOfTheirFile) {
  std::mt19937 rng(9);
  const TestExpert e = random_expert(rng, ExpertKind::kClampedSwiGlu, true, true);
  const uint64_t blocks = 3 * kWidth * kHidden / 32;
  EXPECT_EQ(e.make()->resident_bytes(), blocks * 17 + (2 * kWidth + kHidden) * sizeof(float));
}

TEST(Experts, ANanIsNotClampedAway) {
  std::mt19937 rng(10);
  TestExpert e = random_expert(rng, ExpertKind::kClampedSwiGlu, true, false);
  std::vector<float> x = random_values(rng, kHidden, 1.0f);
  x[3] = std::numeric_limits<float>::quiet_NaN();
  for (const float y : run(*e.make(), x, 1)) EXPECT_TRUE(std::isnan(y));
}

}  // namespace
}  // namespace chimera
