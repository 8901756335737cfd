// The finance expert as a library against the same expert as weights.
//
// The library rounds each weight to int8, W' = W + D with |D_ij| <= s_i / 2, s_i the scale of row
// i, and changes nothing else. So for one input x, with a = Gx, b = Ux, h = silu(a) b, y = Dh:
//   |a' - a| <= A = (s/2) |x|_1, the same B for b
//   |h' - h| <= H = L A (|b| + B) + |silu(a)| B      L = max |silu'| = 1.0999
//   |y' - y| <= |D| H + (s/2) sum(|h| + H)
// plus the rounding of both float computations. This holds for every element whatever the signs.
// The typical error is far smaller; its expected size follows from D being uniform: variance
// s^2/12 per weight.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "backbone/checkpoint/safetensors.h"
#include "experts/finance/library/kernel.h"
#include "experts/kinds/library_module.h"
#include "experts/kinds/load.h"

namespace chimera {
namespace {

constexpr int64_t kHidden = kFinanceHidden, kWidth = kFinanceWidth;
constexpr double kSiluSlope = 1.0999;
const std::string kWeights = CHIMERA_SOURCE_DIR "/experts/finance";
const std::string kLibrary = CHIMERA_BINARY_DIR "/modules/finance-in-process";

BackboneInfo backbone() {
  BackboneInfo info;
  info.config.hidden_size = kHidden;
  info.config.intermediate_size = kWidth;
  info.config.num_layers = kFinanceLayers;
  info.config.num_experts = 1;
  info.fingerprint = read_manifest(kWeights)->backbone_fingerprint;
  info.precision = Precision::kF32;  // keeps the BF16 weights exactly
  info.libraries = std::make_shared<LibraryRuntime>(LibraryRuntime::Options{});
  return info;
}

std::shared_ptr<const Module> load(const std::string& dir) {
  auto module = load_module(dir, backbone());
  EXPECT_TRUE(module.ok()) << module.status().to_string();
  return module.ok() ? *module : nullptr;
}

/// Rows like normalised hidden states: mean square 1.
std::vector<float> rows_of(int64_t count) {
  std::mt19937 rng(7);
  std::normal_distribution<float> normal(0.0f, 1.0f);
  std::vector<float> x(static_cast<size_t>(count * kHidden));
  for (float& v : x) v = normal(rng);
  return x;
}

std::vector<float> forward(const Module& module, int64_t layer, const std::vector<float>& x,
                           int threads = 1) {
  std::vector<float> y(x.size(), NAN);
  FloatBuffer scratch;
  ThreadPool pool(threads);
  ExpertContext context{best_kernels(), pool, scratch};
  const auto rows = static_cast<int64_t>(x.size()) / kHidden;
  const Status status =
      module.layers.at(layer).experts[0]->forward(x.data(), rows, y.data(), context);
  EXPECT_TRUE(status.ok()) << status.to_string();
  return y;
}

/// One matrix in double with the step of its rows.
struct Stored {
  std::vector<double> w;
  std::vector<double> step;  // half of the scale: the largest rounding error of a weight
  int64_t inputs;
  Stored(const SafetensorsFile& file, const std::string& name) {
    const TensorView* t = file.find(name);
    inputs = t->shape[1];
    const auto* values = reinterpret_cast<const uint16_t*>(t->bytes.data());
    for (int64_t i = 0; i < t->shape[0]; ++i) {
      double largest = 0.0;
      for (int64_t j = 0; j < inputs; ++j) {
        w.push_back(double{bf16_to_f32(values[i * inputs + j])});
        largest = std::max(largest, std::abs(w.back()));
      }
      step.push_back(largest / 127.0 / 2.0);
    }
  }
  size_t rows() const { return step.size(); }
  /// Row i times x, and the same with absolute values.
  std::pair<double, double> times(size_t i, const std::vector<double>& x) const {
    double sum = 0.0, absolute = 0.0;
    for (size_t j = 0; j < x.size(); ++j) {
      const double product = w[i * static_cast<size_t>(inputs) + j] * x[j];
      sum += product;
      absolute += std::abs(product);
    }
    return {sum, absolute};
  }
};

double sum_abs(const std::vector<double>& v) {
  double sum = 0.0;
  for (const double x : v) sum += std::abs(x);
  return sum;
}
double sum_square(const std::vector<double>& v) {
  double sum = 0.0;
  for (const double x : v) sum += x * x;
  return sum;
}

struct Expected {
  std::vector<double> y, bound, variance;
};

/// The reference in double, the bound and the expected variance of the library's difference.
Expected reference(const Stored& gate, const Stored& up, const Stored& down,
                   const std::vector<double>& x) {
  // Unit roundoff of float times the longest chain of operations (512 products, the activation).
  constexpr double kRounding = 600.0 * 0x1p-24;
  std::vector<double> h(gate.rows()), dh(gate.rows()), vh(gate.rows());
  for (size_t i = 0; i < gate.rows(); ++i) {
    const auto [a, abs_a] = gate.times(i, x);
    const auto [b, abs_b] = up.times(i, x);
    const double da = gate.step[i] * sum_abs(x) + kRounding * abs_a;
    const double db = up.step[i] * sum_abs(x) + kRounding * abs_b;
    const double sigmoid = 1.0 / (1.0 + std::exp(-a));
    const double silu = a * sigmoid, slope = sigmoid * (1.0 + a * (1.0 - sigmoid));
    h[i] = silu * b;
    dh[i] = kSiluSlope * da * (std::abs(b) + db) + std::abs(silu) * db + kRounding * std::abs(h[i]);
    const double va = gate.step[i] * gate.step[i] / 3.0 * sum_square(x);  // (2 step)^2 / 12
    const double vb = up.step[i] * up.step[i] / 3.0 * sum_square(x);
    vh[i] = slope * slope * b * b * va + silu * silu * vb;
  }
  Expected out;
  for (size_t k = 0; k < down.rows(); ++k) {
    const auto [y, abs_y] = down.times(k, h);
    double bound = kRounding * abs_y, variance = down.step[k] * down.step[k] / 3.0 * sum_square(h);
    for (size_t i = 0; i < h.size(); ++i) {
      const double w = std::abs(down.w[k * h.size() + i]);
      bound += (w + down.step[k]) * dh[i] + down.step[k] * std::abs(h[i]);
      variance += w * w * vh[i];
    }
    out.y.push_back(y);
    out.bound.push_back(bound);
    out.variance.push_back(variance);
  }
  return out;
}

TEST(Finance, LibraryAgreesWithWeightsWithinTheInt8Bound) {
  const auto weights = load(kWeights);
  const auto library = load(kLibrary);
  ASSERT_TRUE(weights && library);
  const auto file = SafetensorsFile::open(kWeights + "/weights.safetensors", Residency::kMapped);
  ASSERT_TRUE(file.ok());
  constexpr int64_t kRows = 8;
  const std::vector<float> x = rows_of(kRows);
  double worst = 0.0, square = 0.0, expected = 0.0, signal = 0.0;
  for (int64_t layer = 0; layer < kFinanceLayers; ++layer) {
    const std::string prefix = fmt::format("layers.{}.experts.0.", layer);
    const Stored gate(*file, prefix + "gate_proj.weight"), up(*file, prefix + "up_proj.weight"),
        down(*file, prefix + "down_proj.weight");
    const std::vector<float> exact = forward(*weights, layer, x);
    const std::vector<float> packed = forward(*library, layer, x);
    for (int64_t r = 0; r < kRows; ++r) {
      const auto* row = x.data() + r * kHidden;
      const Expected want = reference(gate, up, down, {row, row + kHidden});
      for (size_t k = 0; k < static_cast<size_t>(kHidden); ++k) {
        const size_t at = static_cast<size_t>(r * kHidden) + k;
        const double difference = double{packed[at]} - double{exact[at]};
        ASSERT_LE(std::abs(difference), want.bound[k]) << layer << " " << r << " " << k;
        ASSERT_NEAR(double{exact[at]}, want.y[k], 1e-4 + 1e-4 * std::abs(want.y[k]));
        worst = std::max(worst, std::abs(difference) / want.bound[k]);
        square += difference * difference;
        expected += want.variance[k];
        signal += want.y[k] * want.y[k];
      }
    }
  }
  // Over 12,288 elements the mean square comes within a factor of 2 of what uniform rounding
  // gives, unless something else than rounding is at work.
  const double ratio = square / expected;
  EXPECT_GT(ratio, 0.5);
  EXPECT_LT(ratio, 2.0);
  std::cout << fmt::format(
      "finance, library against weights: relative error {:.4f} (root mean square), {:.2f} of what "
      "rounding gives; worst element at {:.3f} of its bound\n",
      std::sqrt(square / signal), std::sqrt(ratio), worst);
}

TEST(Finance, GateRowsAreTheSameBits) {
  const auto weights = load(kWeights);
  const auto library = load(kLibrary);
  ASSERT_TRUE(weights && library);
  for (const auto& [layer, part] : weights->layers) {
    EXPECT_EQ(part.gate_weight, library->layers.at(layer).gate_weight);
    EXPECT_EQ(part.gate_bias, library->layers.at(layer).gate_bias);
  }
}

// Invariant 5 at the level of one expert: alone, in any batch, with any number of threads.
TEST(Finance, RowsDoNotDependOnTheirBatch) {
  const auto library = load(kLibrary);
  ASSERT_TRUE(library);
  constexpr int64_t kRows = 150;  // more than max_rows
  const std::vector<float> x = rows_of(kRows);
  for (const int64_t layer : {0, 5}) {
    const std::vector<float> all = forward(*library, layer, x);
    EXPECT_EQ(forward(*library, layer, x, 3), all);
    for (const int64_t count : {1, 2, 3, 5, 7, 64, 65}) {
      const std::vector<float> part(x.begin(), x.begin() + count * kHidden);
      const std::vector<float> y = forward(*library, layer, part);
      ASSERT_EQ(std::memcmp(y.data(), all.data(), y.size() * sizeof(float)), 0) << count;
    }
  }
}

TEST(FinanceKernel, VectorAndScalarGiveTheSameBits) {
  std::mt19937 rng(3);
  constexpr int64_t kTiles = 19, kInputs = 37, kRows = 7;
  std::vector<float> scale(kTiles * 8), x(kRows * kInputs);
  std::vector<int8_t> q(kTiles * 8 * kInputs);
  std::normal_distribution<float> normal;
  for (float& v : scale) v = normal(rng);
  for (float& v : x) v = normal(rng);
  for (int8_t& v : q) v = static_cast<int8_t>(static_cast<int>(rng() % 255) - 127);
  const finance::Packed packed{scale.data(), q.data(), kInputs};
  for (int64_t rows = 1; rows <= kRows; ++rows) {
    std::vector<float> a(kRows * kTiles * 8, 1.0f), b(a);
    finance::multiply_scalar(packed, 2, kTiles, x.data(), kInputs, rows, a.data(), kTiles * 8);
    finance::best_multiply()(packed, 2, kTiles, x.data(), kInputs, rows, b.data(), kTiles * 8);
    ASSERT_EQ(std::memcmp(a.data(), b.data(), a.size() * sizeof(float)), 0) << rows;
    EXPECT_EQ(a[0], 1.0f) << "outside of the range";
  }
}

}  // namespace
}  // namespace chimera
