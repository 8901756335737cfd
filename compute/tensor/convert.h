// Stored tensors brought into the form that the kernels take.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <vector>

#include "base/status.h"
#include "compute/tensor/tensor.h"

namespace chimera {

/// The format in which a tensor stored as F32, F16, BF16 or in blocks is kept.
WeightFormat kept_format(DType stored, Precision p);
/// Whether these are the same numbers in the same bytes: a tensor is used in place.
bool is_stored_as(DType stored, WeightFormat format);
/// The format to charge before its numbers are known: what needs most memory of those that it may
/// be kept in. MXFP4 with scales too far apart for its own format is rounded (repack.h).
WeightFormat charged_format(DType stored, Precision p);

/// Conversion of one 2-D tensor, used for checkpoints and module files alike.
///   stored  kF32              kBF16                     kQ8, kQ4
///   F32     in place          rounded to nearest even   packed
///   BF16    in place          in place                  packed
///   F16     in place          rounded to nearest even   packed
///   blocks  widened (exact)   rounded to nearest even   packed; Q8_0 and Q5_0 to q8, Q4_0 to q4 as
///                                                       they are, integers with their scales;
///                                                       IQ4_NL, MXFP4 and the K types as they are
///                                                       in formats of their own, under kQ4 K types
///                                                       of at most four bits (repack.h,
///                                                       k_blocks.h)
/// A packed matrix (packed_tensor.h) is used in place, with the precisions that make matrices of
/// its format (runs_packed); failed_precondition with others. "In place" shares the tensor's
/// memory; data that is not aligned for its dtype is copied. data_corrupt: another shape, or rows
/// that are no whole blocks; unimplemented: another dtype; resource_exhausted: no memory.
Result<Matrix> to_matrix(const TensorView& t, int64_t rows, int64_t cols, Precision p);
/// Refuses a packed matrix of a format that `p` does not make (failed_precondition); its header
/// tells.
Status check_packed_for(const TensorView& t, Precision p);
/// Rows [row0, row0 + rows) of matrix `i` of a stack [.., >= row0 + rows, cols], as fused layouts
/// store experts. Same conversions and errors.
Result<Matrix> slice_matrix(const TensorView& t, int64_t i, int64_t row0, int64_t rows,
                            int64_t cols, Precision p);
/// Refuses a dtype that none of these convert, naming the tensor (unimplemented).
Status check_number_dtype(const TensorView& t);
/// A vector of [n], or of any length when n is negative, widened to F32. Same errors.
Result<std::vector<float>> to_f32(const TensorView& t, int64_t n);

}  // namespace chimera
