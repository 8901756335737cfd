// Blocks of a checkpoint put into a packed format without changing a number.
//
//   Q8_0 -> q8   and   Q4_0 -> q4
//
// have the same blocks of 32 inputs, the same integers and the same scale in half precision, so
// this is a rearrangement: widening the result gives bit for bit what widening the blocks gives.
// (q8 then holds -128, which pack_matrix never writes: the kernels have room for it, see
// packed_avx2.h.) Other blocks have minima, tables or nested scales that the packed formats have no
// place for.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>

#include "base/status.h"
#include "compute/tensor/tensor.h"

namespace chimera {

/// Whether `to` holds every value of blocks of `from`.
bool repacks_exactly(DType from, WeightFormat to);

/// rows x cols numbers in blocks, row-major from `blocks` on, in memory of their own.
/// REQUIRES: repacks_exactly(from, to), whole blocks. resource_exhausted: no memory.
Result<Matrix> repack_blocks(DType from, const std::byte* blocks, int64_t rows, int64_t cols,
                             WeightFormat to);

}  // namespace chimera
