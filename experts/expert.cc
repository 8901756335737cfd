#include "experts/expert.h"

#include <algorithm>

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

class SwigluExpert final : public Expert {
 public:
  SwigluExpert(Matrix gate, Matrix up, Matrix down)
      : gate_(std::move(gate)), up_(std::move(up)), down_(std::move(down)) {}

  Status forward(const float* x, int64_t rows, float* y, ExpertContext& ctx) const override {
    const int64_t hidden = gate_.cols;
    const int64_t width = gate_.rows;
    const auto half = static_cast<size_t>(rows * width);
    if (ctx.scratch.size() < 2 * half) ctx.scratch.resize(2 * half);
    float* const g = ctx.scratch.data();  // [rows, width]
    float* const u = g + half;            // [rows, width]
    ctx.pool.parallel_for(width, output_grain(rows, 2 * hidden), [&](int64_t begin, int64_t end) {
      ctx.kernels.matmul(x, rows, hidden, gate_, begin, end, g, width);
      ctx.kernels.matmul(x, rows, hidden, up_, begin, end, u, width);
      for (int64_t r = 0; r < rows; ++r) {
        ctx.kernels.swiglu(g + r * width + begin, u + r * width + begin, end - begin);
      }
    });
    ctx.pool.parallel_for(hidden, output_grain(rows, width), [&](int64_t begin, int64_t end) {
      ctx.kernels.matmul(g, rows, width, down_, begin, end, y, hidden);
    });
    return {};
  }

  uint64_t resident_bytes() const override {
    return static_cast<uint64_t>(gate_.bytes() + up_.bytes() + down_.bytes());
  }

 private:
  Matrix gate_;  // [width, hidden]
  Matrix up_;    // [width, hidden]
  Matrix down_;  // [hidden, width]
};

}  // namespace

std::shared_ptr<const Expert> make_swiglu_expert(Matrix gate, Matrix up, Matrix down) {
  return std::make_shared<SwigluExpert>(std::move(gate), std::move(up), std::move(down));
}

}  // namespace chimera
