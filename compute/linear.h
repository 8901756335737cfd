// Linear layers over the compute pool: one hand-over for one or several products.
//
// The work is cut along the outputs only, so every element is computed by one thread in the
// kernels' fixed order and the result does not depend on the number of threads.
//
// Thread safety: by the pool's owner, as parallel_for.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>

#include "base/threads/thread_pool.h"
#include "compute/kernels/kernels.h"
#include "compute/tensor/tensor.h"

namespace chimera {

/// y[rows, w.rows] = x[rows, w.cols] * w^T. Pointers are borrowed for the call.
struct LinearOp {
  const float* x = nullptr;
  const Matrix* weight = nullptr;
  float* y = nullptr;
  int64_t ldx = 0, ldy = 0;  // row strides in elements; 0 = dense
};

/// Computes all ops (independent of one another) for the same number of rows; returns when done.
/// Small products run on the calling thread. Call from the pool's owner only.
void linear(const Kernels& kernels, ThreadPool& pool, int64_t rows, std::span<const LinearOp> ops);
inline void linear(const Kernels& kernels, ThreadPool& pool, int64_t rows,
                   std::initializer_list<LinearOp> ops) {
  linear(kernels, pool, rows, std::span<const LinearOp>(ops.begin(), ops.size()));
}

}  // namespace chimera
