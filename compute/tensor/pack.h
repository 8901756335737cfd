// Weights brought into a packed format (weight_format.h), and back.
//
// Error of one weight w of a block whose largest magnitude is A:
//   q8   |w' - w| <= A / 127 * 0.5005   (half a step; the scale is rounded up to 11 bits, so the
//                                        largest weight is never cut off)
//   q4   the squared error of a block is at most that of the scale -extreme / 8, where extreme is
//        the weight of largest magnitude: steps of A / 8, the opposite end cut off at 7 / 8 A
// A block with a NaN or an infinity becomes NaN throughout: damage shows, it is not hidden.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>

#include "base/status.h"
#include "compute/tensor/tensor.h"

namespace chimera {

/// `from` (F32 or BF16) in memory of its own, in the packed `format`. REQUIRES: kQ8 or kQ4.
/// resource_exhausted: no memory.
Result<Matrix> pack_matrix(const Matrix& from, WeightFormat format);

/// Row `row` of a matrix in any format, widened to out [cols].
void widen_row(const Matrix& from, int64_t row, float* out);

}  // namespace chimera
