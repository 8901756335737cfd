#include "experts/expert.h"

#include <algorithm>
#include <cmath>

namespace chimera {
namespace {

// Work per hand-over to the pool, in multiply-adds: about 3 us on one core, several times what
// waking a spinning worker costs.
constexpr int64_t kGrainWork = 1 << 16;
// Ranges of output rows are whole multiples of this: one cache line of float outputs, so that two
// threads never write to the same line.
constexpr int64_t kOutputStep = 16;

/// Output rows per range of a [outputs, inputs] product over `rows` input rows.
int64_t output_grain(int64_t rows, int64_t inputs) {
  const int64_t grain = kGrainWork / std::max<int64_t>(1, rows * inputs);
  return (std::max<int64_t>(1, grain) + kOutputStep - 1) / kOutputStep * kOutputStep;
}

// A tile of widened rows stays in the L2 cache: 64 Ki floats are 256 KiB.
constexpr int64_t kTileElements = 64 * 1024;
// Rows of a tile are a multiple of the kernels' register tiles, where the width allows it.
constexpr int64_t kTileStep = 8;

// Of the clamped SwiGLU (gpt_oss); constants of the reference.
constexpr float kClampLimit = 7.0f;
constexpr float kClampAlpha = 1.702f;

/// y[:, n0..n1) = x * W[n0..n1)^T.
void multiply(const Kernels& kernels, const float* x, int64_t rows, const ExpertWeight& w,
              int64_t n0, int64_t n1, float* y) {
  const int64_t cols = w.cols();
  const int64_t outputs = w.rows();
  if (!w.quantised) {
    kernels.matmul(x, rows, cols, w.matrix, n0, n1, y, outputs);
    return;
  }
  // One tile per compute thread, kept between calls: ranges of one loop run at the same time, and
  // none may allocate once the tiles have grown.
  thread_local std::vector<float> tile;
  const int64_t step = std::max(kTileStep, kTileElements / cols / kTileStep * kTileStep);
  for (int64_t begin = n0; begin < n1; begin += step) {
    const int64_t end = std::min(n1, begin + step);
    const auto size = static_cast<size_t>((end - begin) * cols);
    if (tile.size() < size) tile.resize(size);
    w.quantised->widen(begin, end, tile.data());
    const Matrix part{tile.data(), DType::kF32, end - begin, cols, nullptr};
    kernels.matmul(x, rows, cols, part, 0, end - begin, y + begin, outputs);
  }
}

/// y[r, n0..n1) += bias[n0..n1) for all rows of length `stride`.
void add_bias(const std::vector<float>& bias, int64_t rows, int64_t n0, int64_t n1, int64_t stride,
              float* y) {
  if (bias.empty()) return;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t n = n0; n < n1; ++n) y[r * stride + n] += bias[static_cast<size_t>(n)];
  }
}

/// gate[i] = (u + 1) * g * sigmoid(1.702 g) with both clamped. A NaN stays one.
void clamped_swiglu(float* gate, const float* up, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const float g = gate[i] > kClampLimit ? kClampLimit : gate[i];
    const float most = up[i] > kClampLimit ? kClampLimit : up[i];
    const float u = most < -kClampLimit ? -kClampLimit : most;
    gate[i] = (u + 1.0f) * (g / (1.0f + std::exp(-kClampAlpha * g)));
  }
}

class FeedForwardExpert final : public Expert {
 public:
  FeedForwardExpert(ExpertKind kind, ExpertWeights weights) : kind_(kind), w_(std::move(weights)) {}

  Status forward(const float* x, int64_t rows, float* y, ExpertContext& ctx) const override {
    const int64_t hidden = w_.gate.cols();
    const int64_t width = w_.gate.rows();
    const auto half = static_cast<size_t>(rows * width);
    if (ctx.scratch.size() < 2 * half) ctx.scratch.resize(2 * half);
    float* const g = ctx.scratch.data();  // [rows, width]
    float* const u = g + half;            // [rows, width]
    ctx.pool.parallel_for(width, output_grain(rows, 2 * hidden), [&](int64_t begin, int64_t end) {
      multiply(ctx.kernels, x, rows, w_.gate, begin, end, g);
      multiply(ctx.kernels, x, rows, w_.up, begin, end, u);
      add_bias(w_.gate_bias, rows, begin, end, width, g);
      add_bias(w_.up_bias, rows, begin, end, width, u);
      for (int64_t r = 0; r < rows; ++r) {
        float* const gate = g + r * width + begin;
        const float* const up = u + r * width + begin;
        if (kind_ == ExpertKind::kSwiGlu) ctx.kernels.swiglu(gate, up, end - begin);
        if (kind_ == ExpertKind::kClampedSwiGlu) clamped_swiglu(gate, up, end - begin);
      }
    });
    ctx.pool.parallel_for(hidden, output_grain(rows, width), [&](int64_t begin, int64_t end) {
      multiply(ctx.kernels, g, rows, w_.down, begin, end, y);
      add_bias(w_.down_bias, rows, begin, end, hidden, y);
    });
    return {};
  }

  uint64_t resident_bytes() const override {
    const size_t biases = w_.gate_bias.size() + w_.up_bias.size() + w_.down_bias.size();
    return w_.gate.bytes() + w_.up.bytes() + w_.down.bytes() + biases * sizeof(float);
  }

 private:
  ExpertKind kind_;
  ExpertWeights w_;
};

}  // namespace

std::shared_ptr<const Expert> make_expert(ExpertKind kind, ExpertWeights weights) {
  return std::make_shared<FeedForwardExpert>(kind, std::move(weights));
}

std::shared_ptr<const Expert> make_swiglu_expert(Matrix gate, Matrix up, Matrix down) {
  ExpertWeights weights;
  weights.gate.matrix = std::move(gate);
  weights.up.matrix = std::move(up);
  weights.down.matrix = std::move(down);
  return make_expert(ExpertKind::kSwiGlu, std::move(weights));
}

}  // namespace chimera
