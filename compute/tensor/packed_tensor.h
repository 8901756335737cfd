// Packed matrices (weight_format.h) as tensors: what `chimera module pack` writes and a loader uses
// in place. A tensor of a packed type has the shape of its matrix, [outputs, inputs], the bytes of
// its blocks, and the scale of the whole matrix beside it (TensorView::scale). Its rows cannot be
// cut apart: 16 outputs lie in one panel.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "base/status.h"
#include "compute/tensor/tensor.h"

namespace chimera {

/// What the kernels would like a matrix to begin at: a cache line, and one AVX-512 register.
inline constexpr size_t kPackedAlignment = 64;

/// Between a packed type and its format. REQUIRES: is_packed_type(dtype); is_packed(format).
WeightFormat format_of_packed(DType dtype);
DType packed_type(WeightFormat format);
/// Of a matrix of a packed type; nothing for other shapes, and for inputs of a K format that are no
/// whole blocks.
std::optional<int64_t> packed_bytes(DType dtype, std::span<const int64_t> shape);

/// Whether loading with precision `p` makes matrices of `format`.
bool runs_packed(WeightFormat format, Precision p);

/// A packed matrix as a tensor, in place. REQUIRES: is_packed(m.format).
TensorView packed_tensor(std::string name, const Matrix& m);
/// The matrix of a tensor of a packed type: in place where it is aligned, else copied.
/// resource_exhausted: no memory.
Result<Matrix> packed_matrix(const TensorView& t);

/// An element whose block has a NaN or an infinity as its scale or minimum, -1: none.
int64_t first_non_finite_packed(const TensorView& t);

}  // namespace chimera
