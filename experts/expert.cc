#include "experts/expert.h"

#include <algorithm>
#include <cmath>

#include "experts/executor.h"
#include "experts/feed_forward.h"

namespace chimera {
namespace {

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
    const Matrix part{tile.data(), WeightFormat::kF32, end - begin, cols, nullptr};
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

}  // namespace

ExpertExecutor& Expert::executor() const { return caller_executor(); }

StagedExpert::Stage FeedForwardExpert::stage(int index, int64_t rows) const {
  if (index == 0) return {width(), 2 * rows * hidden()};
  return {hidden(), rows * width()};
}

void FeedForwardExpert::run_stage(int index, const Kernels& kernels, const float* x, int64_t rows,
                                  float* scratch, float* y, int64_t begin, int64_t end) const {
  if (index == 1) return project_down(kernels, scratch, rows, y, begin, end);
  float* const u = scratch + rows * width();
  project(kernels, x, rows, scratch, u, begin, end);
  activate(kernels, rows, scratch, u, begin, end);
}

uint64_t FeedForwardExpert::resident_bytes() const {
  const size_t biases = w_.gate_bias.size() + w_.up_bias.size() + w_.down_bias.size();
  return w_.gate.bytes() + w_.up.bytes() + w_.down.bytes() + biases * sizeof(float);
}

void FeedForwardExpert::project(const Kernels& kernels, const float* x, int64_t rows, float* g,
                                float* u, int64_t begin, int64_t end) const {
  multiply(kernels, x, rows, w_.gate, begin, end, g);
  multiply(kernels, x, rows, w_.up, begin, end, u);
}

void FeedForwardExpert::activate(const Kernels& kernels, int64_t rows, float* g, float* u,
                                 int64_t begin, int64_t end) const {
  add_bias(w_.gate_bias, rows, begin, end, width(), g);
  add_bias(w_.up_bias, rows, begin, end, width(), u);
  for (int64_t r = 0; r < rows; ++r) {
    float* const gate = g + r * width() + begin;
    const float* const up = u + r * width() + begin;
    if (kind_ == ExpertKind::kSwiGlu) kernels.swiglu(gate, up, end - begin);
    if (kind_ == ExpertKind::kClampedSwiGlu) clamped_swiglu(gate, up, end - begin);
  }
}

void FeedForwardExpert::project_down(const Kernels& kernels, const float* h, int64_t rows, float* y,
                                     int64_t begin, int64_t end) const {
  multiply(kernels, h, rows, w_.down, begin, end, y);
  add_bias(w_.down_bias, rows, begin, end, hidden(), y);
}

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
