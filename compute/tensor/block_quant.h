// Weights stored with scales per block of elements: FP8 (DeepSeek-V3), MXFP4 (gpt_oss), GGUF. They
// stay as stored in memory and are widened to F32, exactly, where they are used.
//
//   FP8    element E4M3, one scale (F32, BF16 or F16) per block of block_rows x block_cols:
//          W[i, j] = element * scale[i / block_rows, j / block_cols]
//   blocks any type of block_types.h, row after row
//   MXFP4  32 elements E2M1 (two per byte, low nibble first) share one scale byte s:
//          W = element * 2^(s - 127)    (OCP Microscaling Formats 1.0)
//
// Thread safety: immutable.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

#include "base/status.h"
#include "compute/tensor/tensor.h"

namespace chimera {

/// Exact; the two NaN codes 0x7f and 0xff give NaN (E4M3 has no infinity).
float f8e4m3_to_f32(uint8_t code);

/// Elements of a row that share an MXFP4 scale, and bytes they take.
inline constexpr int64_t kMxfp4Block = 32;
inline constexpr int64_t kMxfp4BlockBytes = 16;

/// Rows and columns that share one FP8 scale.
struct BlockShape {
  int64_t rows = 128;
  int64_t cols = 128;

  /// Shape of the scales of a [r, c] matrix.
  int64_t scale_rows(int64_t r) const { return (r + rows - 1) / rows; }
  int64_t scale_cols(int64_t c) const { return (c + cols - 1) / cols; }
  bool operator==(const BlockShape&) const = default;
};

struct QuantMatrix {
  enum class Format : uint8_t { kFp8, kMxfp4, kBlocks };

  Format format = Format::kFp8;
  int64_t rows = 0;
  int64_t cols = 0;
  const std::byte* codes = nullptr;  // row r begins at codes + r * code_step
  int64_t code_step = 0;             // bytes
  const std::byte* scales = nullptr;
  int64_t scale_step = 0;  // bytes between the scales of rows (kMxfp4), of rows of blocks (kFp8)
  BlockShape block;        // kFp8
  DType scale_dtype = DType::kF32;          // kFp8
  DType dtype = DType::kF32;                // kBlocks, which hold their scales
  std::shared_ptr<const void> owner;        // of codes
  std::shared_ptr<const void> scale_owner;  // of scales

  /// Writes rows [begin, end) to out [end - begin, cols].
  void widen(int64_t begin, int64_t end, float* out) const;
  /// Stored size, bytes.
  uint64_t bytes() const;
  /// data_corrupt naming `name` and the place of the first code or scale that is not a finite
  /// number.
  Status check_finite(std::string_view name) const;
};

/// An FP8 tensor [rows, cols] with its scales [scale_rows, scale_cols] of `block`. Both are
/// used in place. data_corrupt: dtypes or shapes that do not fit.
Result<QuantMatrix> fp8_matrix(const TensorView& weight, const TensorView& scale, BlockShape block);
/// Whether FP8 weights may have scales of this dtype.
bool is_scale_dtype(DType dtype);
/// A tensor [rows, cols] of a block type, in place. REQUIRES: is_block_type(t.dtype), two
/// dimensions, loaded.
QuantMatrix block_matrix(const TensorView& t);
/// All of it at a precision, in memory of its own: F32 exactly, BF16 rounded to nearest even,
/// packed formats with their error. resource_exhausted: no memory.
Result<Matrix> widen_matrix(const QuantMatrix& matrix, Precision p);

}  // namespace chimera
