#include "compute/low_rank.h"

#include <algorithm>

#include "compute/kernels/rank_panels.h"
#include "compute/low_rank_shares.h"

namespace chimera {
namespace {

// As kInlineWork of linear_shares.h: a hand-over costs about a microsecond, 64 Ki multiply-adds
// take 1-3 us.
constexpr int64_t kInlineProducts = 64 * 1024;
constexpr int64_t kLeastRankShare = 16 * 1024;
constexpr int64_t kRankSharesPerThread = 4;
// Ranks per share: the kernels' widest register tile.
constexpr int64_t kRankStep = 8;

/// Of `count` things that are `work` multiply-adds together: what one share has of them.
int64_t grain_of(int64_t count, int64_t work, int64_t step, int threads) {
  const int64_t shares =
      std::clamp<int64_t>(work / kLeastRankShare, 1, threads * kRankSharesPerThread);
  return (count + shares * step - 1) / (shares * step) * step;
}

// What is asked for of the matrix that comes next while one is computed: the products ask for the
// rest of it themselves. Matrices of adapters are small and lie apart, so each would begin with
// waiting for memory.
constexpr int64_t kAheadBytes = 2048;

void fetch(const Matrix& m, int64_t first, int64_t elements) {
  const int64_t size = info_of(m.format).element_bytes;
  const auto* from = static_cast<const char*>(m.data) + first * size;
  const int64_t bytes = std::min(elements * size, kAheadBytes);
  constexpr int64_t kLine = 64;
  for (int64_t at = 0; at < bytes; at += kLine) __builtin_prefetch(from + at);
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

void reduce(const Kernels& kernels, std::span<const LowRankOp> ops, int64_t begin, int64_t end) {
  for (size_t i = 0; i < ops.size() && end > 0; ++i) {
    const LowRankOp& op = ops[i];
    const int64_t rank = op.change->rank();
    const int64_t n0 = std::max<int64_t>(begin, 0);
    const int64_t n1 = std::min(end, rank);
    begin -= rank;
    end -= rank;
    if (n0 >= n1) continue;
    if (i + 1 < ops.size() && end > 0) {
      const LowRank& next = *ops[i + 1].change;
      fetch(next.a, 0, std::min(end, next.rank()) * next.inputs());
    }
    kernels.matmul(op.x, op.rows, op.ldx > 0 ? op.ldx : op.change->inputs(), op.change->a, n0, n1,
                   op.low, rank);
    for (int64_t r = 0; r < op.rows; ++r) {
      for (int64_t n = n0; n < n1; ++n) op.low[r * rank + n] *= op.change->scale;
    }
  }
}

void expand(const Kernels& kernels, std::span<const LowRankOp> ops, int64_t begin, int64_t end) {
  const ExpandRanks add = expand_ranks(kernels.isa);
  for (size_t i = 0; i < ops.size(); ++i) {
    const LowRankOp& op = ops[i];
    const int64_t outputs = op.change->outputs();
    const int64_t n1 = std::min(end, outputs);
    if (begin >= n1) continue;
    if (i + 1 < ops.size() && begin < ops[i + 1].change->outputs()) {
      const LowRank& next = *ops[i + 1].change;
      fetch(next.b, begin * next.rank(), (std::min(end, next.outputs()) - begin) * next.rank());
    }
    const int64_t ldy = op.ldy > 0 ? op.ldy : outputs;
    add(op.low, op.rows, op.change->b, begin, n1, op.y, ldy);
    if (op.change->factors == nullptr) continue;
    const float* const factors = op.change->factors->data();
    for (int64_t r = 0; r < op.rows; ++r) {
      float* const y = op.y + r * ldy;
      for (int64_t n = begin; n < n1; ++n) y[n] *= factors[n];
    }
  }
}

LowRankWork work_of(std::span<const LowRankOp> ops) {
  LowRankWork out;
  for (const LowRankOp& op : ops) {
    const int64_t rows = std::max(op.rows, kRankLeastRows);
    out.ranks += op.change->rank();
    out.outputs = std::max(out.outputs, op.change->outputs());
    out.down += rows * op.change->rank() * op.change->inputs();
    out.up += rows * op.change->rank() * op.change->outputs();
  }
  return out;
}

int64_t rank_grain(const LowRankWork& work, int threads) {
  return grain_of(work.ranks, work.down, kRankStep, threads);
}

int64_t output_grain(const LowRankWork& work, int threads) {
  return grain_of(work.outputs, work.up, kRankPanel, threads);
}

void place(std::span<LowRankOp> ops, FloatBuffer& scratch) {
  const auto floats = static_cast<size_t>(low_floats(ops));
  if (scratch.size() < floats) scratch.resize(floats);
  place_low(scratch.data(), ops);
}

void expand_all(const Kernels& kernels, ThreadPool& pool, std::span<const LowRankOp> ops,
                const LowRankWork& work) {
  if (work.up < kInlineProducts) return expand(kernels, ops, 0, work.outputs);
  pool.parallel_for(work.outputs, output_grain(work, pool.threads()),
                    [&](int64_t begin, int64_t end) { expand(kernels, ops, begin, end); });
}

void add_low_rank(const Kernels& kernels, ThreadPool& pool, std::span<LowRankOp> ops,
                  FloatBuffer& scratch) {
  place(ops, scratch);
  const LowRankWork work = work_of(ops);
  if (work.down < kInlineProducts) {
    reduce(kernels, ops, 0, work.ranks);
  } else {
    pool.parallel_for(work.ranks, rank_grain(work, pool.threads()),
                      [&](int64_t begin, int64_t end) { reduce(kernels, ops, begin, end); });
  }
  expand_all(kernels, pool, ops, work);
}

}  // namespace chimera
