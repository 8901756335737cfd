// Blocks of a checkpoint put into a packed format without changing a number.
//
//   Q8_0, Q5_0 -> q8   Q4_0 -> q4   IQ4_NL -> iq4_nl
//
// have the same blocks of 32 inputs, the same integers and the same scale in half precision, so
// this is a rearrangement: widening the result gives bit for bit what widening the blocks gives.
// (q8 then holds -128, which pack_matrix never writes: the kernels have room for it, see
// packed_avx2.h.) K types have formats of their own (k_blocks.h); Q4_1 and Q5_1 have minima that
// the packed formats have no place for.
//
//   MXFP4 -> mxfp4
//
// keeps every number when the scales of blocks that are not all zeros lie within a factor of 2^37
// of one another (a zero may lose its sign).
//
//   INT4 -> q4, q8   INT8 -> q8   INT4_AFFINE -> q8
//
// keep every integer as it is (an affine one less its zero point, when offset / scale is one), and
// round the scales, which were F32, to 11 bits: exact for scales that were stored as F16 or BF16
// and lie within a factor of 2^27 of the largest of their matrix.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <optional>

#include "base/status.h"
#include "compute/tensor/block_quant.h"
#include "compute/tensor/tensor.h"

namespace chimera {

/// Whether `to` holds every value of blocks of `from`.
bool repacks_exactly(DType from, WeightFormat to);

/// rows x cols numbers in blocks, row-major from `blocks` on, in memory of their own.
/// REQUIRES: repacks_exactly(from, to), whole blocks. resource_exhausted: no memory.
Result<Matrix> repack_blocks(DType from, const std::byte* blocks, int64_t rows, int64_t cols,
                             WeightFormat to);

/// rows x cols numbers of MXFP4 in GGUF's blocks. Nothing when the scales lie too far apart.
/// resource_exhausted: no memory. REQUIRES: whole blocks.
Result<std::optional<Matrix>> repack_mxfp4_blocks(const std::byte* blocks, int64_t rows,
                                                  int64_t cols);
/// The same of MXFP4 as Hugging Face stores it. REQUIRES: Format::kMxfp4.
Result<std::optional<Matrix>> repack_mxfp4(const QuantMatrix& from);

/// Whether the integers of blocks of `from` may be those of `to`.
bool repacks_integers(DType from, WeightFormat to);

/// The same for these. Nothing when the offsets of an affine type are no multiples of its scales:
/// such a matrix has no integers around zero. REQUIRES: repacks_integers(from, to).
Result<std::optional<Matrix>> repack_integers(DType from, const std::byte* blocks, int64_t rows,
                                              int64_t cols, WeightFormat to);

}  // namespace chimera
