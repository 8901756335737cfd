// The numbers of one tensor of a parent, row by row, however they are stored: plain, a slice of a
// stack (transposed, interleaved), FP8 or MXFP4.
//
// Lifetime: shares the memory of the file it comes from.
//
// Thread safety: immutable; release() only affects residency.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "compute/tensor/block_quant.h"
#include "compute/tensor/tensor.h"
#include "experts/module/stored_expert.h"

namespace chimera {

class TensorData {
 public:
  /// A whole tensor; of another dtype than F32, F16 and BF16: opaque, only raw() works.
  explicit TensorData(const TensorView& tensor);
  /// Part of a stack.
  explicit TensorData(StoredPart part);
  explicit TensorData(QuantMatrix matrix);

  const std::vector<int64_t>& shape() const { return shape_; }
  /// Rows x columns of the dense form: all dimensions but the last, and the last.
  int64_t rows() const { return part_.at.rows; }
  int64_t cols() const { return part_.at.cols; }
  int64_t elements() const { return rows() * cols(); }
  DType dtype() const { return part_.tensor.dtype; }
  bool quantised() const { return quant_.has_value(); }
  bool opaque() const { return opaque_; }
  /// Rows one after the other; else release() waits for the last one.
  bool dense() const { return part_.at.dense(); }
  /// Bytes that are read for `rows` rows.
  uint64_t stored_bytes(int64_t rows) const;

  /// Rows [begin, end) as F32, exactly. REQUIRES: !opaque().
  void widen(int64_t begin, int64_t end, float* out) const;
  /// Rows [begin, end) as they are stored. REQUIRES: !quantised().
  void raw(int64_t begin, int64_t end, std::byte* out) const;
  /// Tells the system that rows [begin, end) of a mapped file are not needed in memory any more.
  void release(int64_t begin, int64_t end) const;
  /// Asks for them in advance.
  void prefetch(int64_t begin, int64_t end) const;

 private:
  std::span<const std::byte> span_of(int64_t begin, int64_t end) const;

  StoredPart part_;
  std::optional<QuantMatrix> quant_;
  std::vector<int64_t> shape_;
  bool opaque_ = false;
};

/// Takes whole pages of a mapped file out of memory; reading them again brings them back.
void release_pages(std::span<const std::byte> bytes);

/// Whether all n numbers are finite.
bool all_finite(const float* values, size_t n);

}  // namespace chimera
