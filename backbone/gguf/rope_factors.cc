#include "backbone/gguf/rope_factors.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "compute/tensor/convert.h"

namespace chimera {
namespace {

// The factors went through F32 once, and their frequencies too.
constexpr double kRounding = 1e-5;

// Released models say 8192; small ones less.
constexpr double kLeastPositions = 16, kMostPositions = 1 << 20;

struct Llama3 {
  double factor, low, high, original;
};

/// Factor of frequency i of n (model-families section 0.3): how much longer its wave becomes.
double factor_of(const Llama3& p, double theta, size_t i, size_t n) {
  const double wavelength =
      2 * std::numbers::pi * std::pow(theta, static_cast<double>(i) / static_cast<double>(n));
  if (wavelength < p.original / p.high) return 1.0;
  if (wavelength > p.original / p.low) return p.factor;
  const double smooth = (p.original / wavelength - p.low) / (p.high - p.low);
  return 1.0 / ((1.0 - smooth) / p.factor + smooth);
}

bool fits(const Llama3& p, double theta, const std::vector<float>& factors) {
  for (size_t i = 0; i < factors.size(); ++i) {
    const double expected = factor_of(p, theta, i, factors.size());
    if (!(std::fabs(factors[i] - expected) <= kRounding * expected)) return false;
  }
  return true;
}

}  // namespace

std::optional<Json> llama3_scaling(const TensorView& tensor, double theta) {
  if (tensor.shape.size() != 1) return std::nullopt;
  const Result<std::vector<float>> factors = to_f32(tensor, -1);
  if (!factors.ok() || factors->empty()) return std::nullopt;
  // The slowest frequencies have the whole factor.
  const double most = std::nearbyint(double{*std::max_element(factors->begin(), factors->end())});
  if (!(most >= 1.0)) return std::nullopt;
  // Different parameters with the same factors mean the same.
  for (double original = kLeastPositions; original <= kMostPositions; original *= 2) {
    for (const double high : {4.0, 1.0}) {
      const Llama3 p{most, 1.0, high, original};
      if (!fits(p, theta, *factors)) continue;
      return Json{{"rope_type", "llama3"},
                  {"factor", p.factor},
                  {"low_freq_factor", p.low},
                  {"high_freq_factor", p.high},
                  {"original_max_position_embeddings", static_cast<int64_t>(p.original)}};
    }
  }
  return std::nullopt;
}

}  // namespace chimera
