// Low-rank changes of a linear layer, y += scale * (x A^T) B^T (LoRA: Hu et al. 2021, arXiv
// 2106.09685, section 4.1), added to a product that was computed without them.
//
// Two loops: the first brings the inputs down to the ranks, the second adds to the outputs. As with
// linear.h they are cut along what they write alone, so an element has one fixed order of
// operations - the order of the kernels over the inputs, then one multiply-add per rank in
// ascending order, beginning at y, then the factor, if there are some - and depends on its own row
// alone: not on the batch, on who else is changed in it, nor on the number of threads.
//
// Thread safety: a LowRank is immutable and read by any number of threads; add_low_rank by the
// pool's owner, as linear().
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/threads/thread_pool.h"
#include "compute/kernels/kernels.h"
#include "compute/tensor/float_buffer.h"
#include "compute/tensor/tensor.h"

namespace chimera {

/// The change scale * B A of a weight [outputs, inputs]; with factors, of what it is changed to:
/// y = factor * (y + scale * (x A^T) B^T) for each output (DoRA).
struct LowRank {
  Matrix a;  // [rank, inputs], F32 or BF16
  Matrix b;  // [rank, outputs], F32 or BF16: B as compute/kernels/rank_panels.h has it
  float scale = 1.0f;
  std::shared_ptr<const std::vector<float>> factors = nullptr;  // [outputs]; null: none

  int64_t rank() const { return a.rows; }
  int64_t inputs() const { return a.cols; }
  int64_t outputs() const { return b.cols; }
  bool empty() const { return a.rows == 0; }
  uint64_t bytes() const {
    return a.bytes() + b.bytes() + (factors == nullptr ? 0 : factors->size() * sizeof(float));
  }
};

/// Adds the change of x [rows, inputs] to y [rows, outputs], in place. Pointers are borrowed for
/// the call.
struct LowRankOp {
  const LowRank* change = nullptr;
  const float* x = nullptr;
  float* y = nullptr;
  int64_t rows = 0;
  int64_t ldx = 0, ldy = 0;  // row strides in elements; 0: dense
  float* low = nullptr;      // scratch [rows, rank]; set by place_low
};

/// Floats of scratch memory that `ops` need, and where each op has its own in it.
int64_t low_floats(std::span<const LowRankOp> ops);
void place_low(float* scratch, std::span<LowRankOp> ops);

/// First loop: of the concatenated ranks of all ops those in [begin, end).
void reduce(const Kernels& kernels, std::span<const LowRankOp> ops, int64_t begin, int64_t end);
/// Second loop: outputs [begin, end) of every op, in the order of the ops.
void expand(const Kernels& kernels, std::span<const LowRankOp> ops, int64_t begin, int64_t end);

/// Both loops over the pool. Ops that write to the same memory do so with the same `y` and `ldy`,
/// or in different rows; they add in their order. Small ones run on the calling thread.
void add_low_rank(const Kernels& kernels, ThreadPool& pool, std::span<LowRankOp> ops,
                  FloatBuffer& scratch);

}  // namespace chimera
