#include "backbone/forward/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace chimera {
namespace {

/// theta^(-2i/d) for i in [0, d/2).
std::vector<float> plain_frequencies(double theta, int64_t dim) {
  std::vector<float> out;
  for (int64_t i = 0; i < dim; i += 2) {
    const float exponent = static_cast<float>(i) / static_cast<float>(dim);
    out.push_back(1.0f / std::pow(static_cast<float>(theta), exponent));
  }
  return out;
}

/// Long wavelengths are stretched, short ones kept, those in between mixed.
void scale_llama3(const RopeParameters& rope, std::vector<float>& inv_freq) {
  const auto original = static_cast<float>(rope.original_max_position);
  const auto low = static_cast<float>(rope.low_freq_factor);
  const auto high = static_cast<float>(rope.high_freq_factor);
  const auto factor = static_cast<float>(rope.factor);
  for (float& inv : inv_freq) {
    const float wavelength = 2.0f * std::numbers::pi_v<float> / inv;
    if (wavelength > original / low) {
      inv /= factor;
    } else if (high > low && !(wavelength < original / high)) {  // else there is no middle band
      const float smooth = (original / wavelength - low) / (high - low);
      inv = (1.0f - smooth) * inv / factor + smooth * inv;
    }
  }
}

/// Index of the channel pair that turns `rotations` times within the original range.
double correction_index(const RopeParameters& rope, int64_t dim, double rotations) {
  return static_cast<double>(dim) *
         std::log(static_cast<double>(rope.original_max_position) /
                  (rotations * 2.0 * std::numbers::pi)) /
         (2.0 * std::log(rope.theta));
}

/// Pairs that turn often within the original range keep their frequency, slow ones are stretched,
/// with a linear ramp in between.
void scale_yarn(const RopeParameters& rope, std::vector<float>& inv_freq) {
  const int64_t dim = 2 * static_cast<int64_t>(inv_freq.size());
  double low = correction_index(rope, dim, rope.beta_fast);
  double high = correction_index(rope, dim, rope.beta_slow);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(dim - 1));
  if (low == high) high += 0.001;
  for (size_t i = 0; i < inv_freq.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    const auto stretched = static_cast<float>(ramp);
    inv_freq[i] = inv_freq[i] / static_cast<float>(rope.factor) * stretched +
                  inv_freq[i] * (1.0f - stretched);
  }
}

double yarn_attention_factor(const RopeParameters& rope) {
  if (rope.attention_factor) return *rope.attention_factor;
  if (rope.mscale != 0.0 && rope.mscale_all_dim != 0.0)
    return yarn_mscale(rope.factor, rope.mscale) / yarn_mscale(rope.factor, rope.mscale_all_dim);
  return yarn_mscale(rope.factor, 1.0);
}

}  // namespace

double yarn_mscale(double factor, double mscale) {
  return factor <= 1.0 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

float attention_scale(const ModelConfig& config) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(config.head_dim));
  const RopeParameters& rope = config.rope;
  if (!config.mla || rope.mscale_all_dim == 0.0) return static_cast<float>(scale);
  const double m = yarn_mscale(rope.factor, rope.mscale_all_dim);
  return static_cast<float>(scale * m * m);
}

Rope::Rope(const ModelConfig& config)
    : inv_freq_(plain_frequencies(config.rope.theta, config.rope_dim)),
      interleaved_(config.rope_interleaved) {
  const RopeParameters& rope = config.rope;
  switch (rope.type) {
    case RopeType::kDefault:
    case RopeType::kDynamic:
      break;
    case RopeType::kLinear:
      for (float& inv : inv_freq_) inv /= static_cast<float>(rope.factor);
      break;
    case RopeType::kLlama3:
      scale_llama3(rope, inv_freq_);
      break;
    case RopeType::kYarn:
      scale_yarn(rope, inv_freq_);
      attention_factor_ = static_cast<float>(yarn_attention_factor(rope));
      break;
  }
}

void Rope::angles(int64_t position, float* out) const {
  const auto half = inv_freq_.size();
  const auto at = static_cast<float>(position);
  for (size_t i = 0; i < half; ++i) {
    const float angle = at * inv_freq_[i];
    out[i] = std::cos(angle) * attention_factor_;
    out[half + i] = std::sin(angle) * attention_factor_;
  }
}

void Rope::rotate(const float* angles, float* channels) const {
  const auto half = inv_freq_.size();
  const float* cosines = angles;
  const float* sines = angles + half;
  const size_t step = interleaved_ ? 2 : 1;
  const size_t partner = interleaved_ ? 1 : half;
  for (size_t i = 0; i < half; ++i) {
    float& first = channels[i * step];
    float& second = channels[i * step + partner];
    const float a = first;
    const float b = second;
    first = a * cosines[i] - b * sines[i];
    second = b * cosines[i] + a * sines[i];
  }
}

}  // namespace chimera
