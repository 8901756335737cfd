// Rotary position embedding (RoFormer, arXiv 2104.09864) with the scalings of model-families
// section 0.3: linear, dynamic NTK, YaRN (arXiv 2309.00071) and llama3.
//
// Dynamic NTK grows its base with the length of the sequence beyond max_position_embeddings. The
// reference then rotates the keys of one sequence by different frequencies, depending on how it was
// cut into passes and on longer sequences seen before; so here it is the default rotation within
// max_position_embeddings, which is what it means there, and positions beyond are refused.
//
// Thread safety: immutable.
#pragma once

#include <cstdint>
#include <vector>

#include "backbone/families/model_config.h"

namespace chimera {

class Rope {
 public:
  Rope() = default;
  explicit Rope(const ModelConfig& config);

  /// Channels rotated per head; even.
  int64_t dim() const { return 2 * static_cast<int64_t>(inv_freq_.size()); }
  /// What cosines and sines are multiplied by; it counts twice in a score.
  float attention_factor() const { return attention_factor_; }
  const std::vector<float>& inv_freq() const { return inv_freq_; }  // [dim / 2]

  /// out [dim]: the cosines of a position's angles, then their sines. In float, as the reference.
  void angles(int64_t position, float* out) const;
  /// Rotates one head's `dim` channels in place by angles() of its position.
  void rotate(const float* angles, float* channels) const;

 private:
  std::vector<float> inv_freq_;
  float attention_factor_ = 1.0f;
  bool interleaved_ = false;
};

/// YaRN's 0.1 * mscale * ln(factor) + 1; 1 for factors up to 1.
double yarn_mscale(double factor, double mscale);

/// What the scores of attention are multiplied by: head_dim^-0.5, and yarn_mscale(factor,
/// mscale_all_dim) squared where latent attention runs with a scaled rotation.
float attention_scale(const ModelConfig& config);

}  // namespace chimera
