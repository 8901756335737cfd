// The K types of GGUF (block_types.h) taken apart into their integers, and put into the K formats
// of the kernels (k_layout.h) without changing a number.
//
// Thread safety: pure functions.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "base/status.h"
#include "compute/tensor/tensor.h"

namespace chimera {

/// Widens one block of 256: block_types.h says to what.
void widen_q2_k(const uint8_t* block, float* out);
void widen_q3_k(const uint8_t* block, float* out);
void widen_q4_k(const uint8_t* block, float* out);
void widen_q5_k(const uint8_t* block, float* out);
void widen_q6_k(const uint8_t* block, float* out);

/// The format that holds every number of a dtype; nothing for other dtypes than the K types.
std::optional<WeightFormat> k_format(DType dtype);

/// rows x cols numbers of the K type that `format` holds, row-major in blocks of `block_bytes` from
/// `blocks` on, in memory of their own. REQUIRES: a K format, whole blocks (to_matrix checks that).
/// resource_exhausted: no memory.
Result<Matrix> repack_k_blocks(WeightFormat format, int64_t block_bytes, const std::byte* blocks,
                               int64_t rows, int64_t cols);

/// Row `row` of a matrix in a K format, widened to out [cols]: the same bits as its blocks.
void widen_k_row(const Matrix& from, int64_t row, float* out);

}  // namespace chimera
