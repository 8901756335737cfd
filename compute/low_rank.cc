#include "compute/low_rank.h"

#include <algorithm>

namespace chimera {
namespace {

// As in linear.cc: a hand-over costs about a microsecond, 64 Ki multiply-adds take 1-3 us.
constexpr int64_t kInlineProducts = 64 * 1024;
constexpr int64_t kColumnSharesPerThread = 4;
// Outputs per share are whole cache lines, so that two threads never write to the same one.
constexpr int64_t kOutputStep = 16;
// Ranks per share: the kernels' widest register tile.
constexpr int64_t kRankStep = 8;
// Outputs that are added at a time for all rows: with 16 ranks a tile of B is 32 KiB, the first
// level of a cache.
constexpr int64_t kTileOutputs = 512;

int64_t grain_of(int64_t count, int64_t step, int threads) {
  const int64_t share = count / (threads * kColumnSharesPerThread);
  return std::max<int64_t>(step, share / step * step);
}

}  // namespace

int64_t low_floats(std::span<const LowRankOp> ops) {
  int64_t floats = 0;
  for (const LowRankOp& op : ops) floats += op.rows * op.change->rank();
  return floats;
}

void place_low(float* scratch, std::span<LowRankOp> ops) {
  for (LowRankOp& op : ops) {
    op.low = scratch;
    scratch += op.rows * op.change->rank();
  }
}

int64_t total_rank(std::span<const LowRankOp> ops) {
  int64_t rank = 0;
  for (const LowRankOp& op : ops) rank += op.change->rank();
  return rank;
}

void reduce(const Kernels& kernels, std::span<const LowRankOp> ops, int64_t begin, int64_t end) {
  for (const LowRankOp& op : ops) {
    const int64_t rank = op.change->rank();
    const int64_t n0 = std::max<int64_t>(begin, 0);
    const int64_t n1 = std::min(end, rank);
    begin -= rank;
    end -= rank;
    if (n0 >= n1) continue;
    kernels.matmul(op.x, op.rows, op.ldx > 0 ? op.ldx : op.change->inputs(), op.change->a, n0, n1,
                   op.low, rank);
    for (int64_t r = 0; r < op.rows; ++r) {
      for (int64_t n = n0; n < n1; ++n) op.low[r * rank + n] *= op.change->scale;
    }
  }
}

void expand(const Kernels& kernels, std::span<const LowRankOp> ops, int64_t begin, int64_t end) {
  for (const LowRankOp& op : ops) {
    const int64_t rank = op.change->rank();
    const int64_t outputs = op.change->outputs();
    const int64_t ldy = op.ldy > 0 ? op.ldy : outputs;
    const auto* b = static_cast<const float*>(op.change->b.data);
    for (int64_t n0 = begin; n0 < std::min(end, outputs); n0 += kTileOutputs) {
      const int64_t n = std::min({end, outputs, n0 + kTileOutputs}) - n0;
      for (int64_t r = 0; r < op.rows; ++r) {
        for (int64_t k = 0; k < rank; ++k)
          kernels.axpy(op.low[r * rank + k], b + k * outputs + n0, op.y + r * ldy + n0, n);
      }
    }
  }
}

void add_low_rank(const Kernels& kernels, ThreadPool& pool, std::span<LowRankOp> ops,
                  FloatBuffer& scratch) {
  const auto floats = static_cast<size_t>(low_floats(ops));
  if (scratch.size() < floats) scratch.resize(floats);
  place_low(scratch.data(), ops);
  const int64_t ranks = total_rank(ops);
  int64_t outputs = 0;
  int64_t down = 0;
  int64_t up = 0;
  for (const LowRankOp& op : ops) {
    outputs = std::max(outputs, op.change->outputs());
    down += op.rows * op.change->rank() * op.change->inputs();
    up += op.rows * op.change->rank() * op.change->outputs();
  }
  if (down < kInlineProducts) {
    reduce(kernels, ops, 0, ranks);
  } else {
    pool.parallel_for(ranks, grain_of(ranks, kRankStep, pool.threads()),
                      [&](int64_t begin, int64_t end) { reduce(kernels, ops, begin, end); });
  }
  if (up < kInlineProducts) {
    expand(kernels, ops, 0, outputs);
  } else {
    pool.parallel_for(outputs, grain_of(outputs, kOutputStep, pool.threads()),
                      [&](int64_t begin, int64_t end) { expand(kernels, ops, begin, end); });
  }
}

}  // namespace chimera
