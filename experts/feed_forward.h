// Experts that are weights in memory: the class behind make_expert, for who adds to its products.
//
// Thread safety: immutable; outputs of concurrent calls are disjoint.
#pragma once

#include <cstdint>

#include "experts/staged.h"

namespace chimera {

/// Two stages: the activations [rows, width] into the scratch memory, then the outputs. Each is
/// made of steps, between which an adapter adds what it changes (adapted_expert.h).
class FeedForwardExpert final : public StagedExpert {
 public:
  FeedForwardExpert(ExpertKind kind, ExpertWeights weights) : kind_(kind), w_(std::move(weights)) {}

  int stages() const override { return 2; }
  Stage stage(int index, int64_t rows) const override;
  int64_t scratch_floats(int64_t rows) const override { return 2 * rows * width(); }
  void run_stage(int index, const Kernels& kernels, const float* x, int64_t rows, float* scratch,
                 float* y, int64_t begin, int64_t end) const override;
  const FeedForwardExpert* feed_forward() const override { return this; }
  uint64_t resident_bytes() const override;

  const ExpertWeights& weights() const { return w_; }
  int64_t hidden() const { return w_.gate.cols(); }
  int64_t width() const { return w_.gate.rows(); }

  /// g, u [rows, width] = x * gate^T, x * up^T, without biases; columns [begin, end).
  void project(const Kernels& kernels, const float* x, int64_t rows, float* g, float* u,
               int64_t begin, int64_t end) const;
  /// Adds the biases of both and puts the activations in the place of g; the same columns.
  void activate(const Kernels& kernels, int64_t rows, float* g, float* u, int64_t begin,
                int64_t end) const;
  /// y [rows, hidden] = h * down^T + bias; columns [begin, end).
  void project_down(const Kernels& kernels, const float* h, int64_t rows, float* y, int64_t begin,
                    int64_t end) const;

 private:
  ExpertKind kind_;
  ExpertWeights w_;
};

}  // namespace chimera
