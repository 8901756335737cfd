// Products of int8 tiles with float rows. Both variants sum every output over the inputs in order
// with fused multiply-adds, so they agree to the bit, whatever the number of rows and the range.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>

#include "experts/finance/library/packed.h"

namespace finance {

/// One packed matrix: scale [tiles * 8], q [tiles][inputs][8].
struct Packed {
  const float* scale;
  const int8_t* q;
  int64_t inputs;
};

/// y[r][8t + l] = scale[8t + l] * sum_j q[t][j][l] x[r][j] for begin <= t < end, r < rows; strides
/// in floats.
using Multiply = void (*)(const Packed& w, int64_t begin, int64_t end, const float* x,
                          int64_t x_stride, int64_t rows, float* y, int64_t y_stride);

void multiply_scalar(const Packed& w, int64_t begin, int64_t end, const float* x, int64_t x_stride,
                     int64_t rows, float* y, int64_t y_stride);
/// The best one for this machine.
Multiply best_multiply();

/// gate[i] = silu(gate[i]) * up[i]
void swiglu(float* gate, const float* up, int64_t n);

}  // namespace finance
