// Element types, tensor views and the weight matrix that the kernels take.
//
// Lifetime: a TensorView borrows; a Matrix shares ownership of the memory it points into, so it
// may outlive the file object it came from.
//
// Thread safety: values; what they point at is read by any number of threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "compute/tensor/precision.h"
#include "compute/tensor/weight_format.h"

namespace chimera {

enum class DType : uint8_t {
  kF32,
  kF16,
  kBF16,
  kF64,
  kI64,
  kI32,
  kI16,
  kI8,
  kU8,
  kBool,
  kF8E4M3,
  kF8E5M2,
  kU64,
  kU32,
  kU16,
  // Blocks of quantised numbers, as GGUF files store them (block_types.h).
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ8_0,
  kQ2_K,
  kQ3_K,
  kQ4_K,
  kQ5_K,
  kQ6_K,
  kIQ4_NL,
  kMXFP4,
  // The same for integers and numbers as quantised Hugging Face checkpoints hold them, with scales
  // in F32.
  kInt4,
  kInt8,
  kInt4Affine,
  kInt8Affine,
  kNVFP4,
  // Matrices in packed formats, in the order of WeightFormat (packed_tensor.h).
  kPackedQ8,
  kPackedQ4,
  kPackedIQ4_NL,
  kPackedMXFP4,
  kPackedQ2_K,
  kPackedQ3_K,
  kPackedQ4_K,
  kPackedQ5_K,
  kPackedQ6_K
};

/// Bits per element; 0 for blocks, whose elements have no place of their own.
int dtype_bits(DType dtype);
/// The safetensors spelling, e.g. "BF16"; of blocks, that of block_types.h, e.g. "Q4_K".
std::string_view dtype_name(DType dtype);

/// The least that can be addressed: one element, or one block.
struct DTypeUnit {
  int64_t elements;
  int64_t bytes;
};
DTypeUnit unit_of(DType dtype);
inline bool is_block_type(DType dtype) { return dtype >= DType::kQ4_0 && dtype <= DType::kNVFP4; }
inline bool is_packed_type(DType dtype) { return dtype >= DType::kPackedQ8; }
/// Of a dense tensor, or a packed matrix whose innermost dimension is whole units; nothing when it
/// is not, when a dimension is negative, or when 63 bits do not hold it.
std::optional<int64_t> dense_bytes(DType dtype, std::span<const int64_t> shape);

class TensorSource;

/// One named tensor inside memory that somebody else owns, or one that is still to be made
/// (`source` is set): its `bytes` then have their size and nothing to read; loaded() of
/// tensor_source.h makes them.
struct TensorView {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;         // outermost first; empty = scalar
  std::span<const std::byte> bytes;   // dense row-major, product(shape) elements
  std::shared_ptr<const void> owner;  // keeps `bytes` alive
  std::shared_ptr<const TensorSource> source = nullptr;
  float scale = 1.0f;  // packed types: Matrix::scale

  int64_t elements() const {
    int64_t n = 1;
    for (int64_t d : shape) n *= d;
    return n;
  }
};

/// "[256, 512]"
std::string shape_string(std::span<const int64_t> shape);

/// Weight of a linear layer, y = x * W^T, [rows = outputs, cols = inputs], in one of the formats of
/// weight_format.h. Row-major ones are usable in place as Hugging Face stores them.
struct Matrix {
  const void* data = nullptr;
  WeightFormat format = WeightFormat::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  std::shared_ptr<const void> owner;
  float scale = 1.0f;  // packed formats: of the whole matrix, a power of two

  size_t bytes() const { return static_cast<size_t>(weight_bytes(format, rows, cols)); }
};

/// A weight in half precision, where a bare uint16_t is one in BF16.
struct Half {
  uint16_t bits = 0;
};

/// Exact widening and round-to-nearest-even narrowing.
inline float bf16_to_f32(uint16_t value) {
  const uint32_t bits = static_cast<uint32_t>(value) << 16;
  float out;
  static_assert(sizeof(out) == sizeof(bits));
  __builtin_memcpy(&out, &bits, sizeof(out));
  return out;
}
uint16_t f32_to_bf16(float value);
float f16_to_f32(uint16_t value);
/// Beyond the range: infinity.
uint16_t f32_to_f16(float value);

}  // namespace chimera
