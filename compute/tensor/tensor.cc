#include "compute/tensor/tensor.h"

#include <bit>

#include "compute/tensor/block_types.h"
#include "compute/tensor/packed_tensor.h"

namespace chimera {

int dtype_bits(DType dtype) {
  switch (dtype) {
    case DType::kF64:
    case DType::kI64:
    case DType::kU64:
      return 64;
    case DType::kF32:
    case DType::kI32:
    case DType::kU32:
      return 32;
    case DType::kF16:
    case DType::kBF16:
    case DType::kI16:
    case DType::kU16:
      return 16;
    case DType::kI8:
    case DType::kU8:
    case DType::kBool:
    case DType::kF8E4M3:
    case DType::kF8E5M2:
      return 8;
    default:
      return 0;
  }
}

std::string_view dtype_name(DType dtype) {
  if (const BlockType* block = block_type(dtype)) return block->name;
  switch (dtype) {
    case DType::kF64:
      return "F64";
    case DType::kI64:
      return "I64";
    case DType::kU64:
      return "U64";
    case DType::kF32:
      return "F32";
    case DType::kI32:
      return "I32";
    case DType::kU32:
      return "U32";
    case DType::kF16:
      return "F16";
    case DType::kBF16:
      return "BF16";
    case DType::kI16:
      return "I16";
    case DType::kU16:
      return "U16";
    case DType::kI8:
      return "I8";
    case DType::kU8:
      return "U8";
    case DType::kBool:
      return "BOOL";
    case DType::kPackedQ8:
      return "PACKED_Q8";
    case DType::kPackedQ4:
      return "PACKED_Q4";
    case DType::kPackedIQ4_NL:
      return "PACKED_IQ4_NL";
    case DType::kPackedMXFP4:
      return "PACKED_MXFP4";
    case DType::kPackedQ2_K:
      return "PACKED_Q2_K";
    case DType::kPackedQ3_K:
      return "PACKED_Q3_K";
    case DType::kPackedQ4_K:
      return "PACKED_Q4_K";
    case DType::kPackedQ5_K:
      return "PACKED_Q5_K";
    case DType::kPackedQ6_K:
      return "PACKED_Q6_K";
    case DType::kF8E4M3:
      return "F8_E4M3";
    case DType::kF8E5M2:
      return "F8_E5M2";
    default:
      return "unknown";
  }
}

DTypeUnit unit_of(DType dtype) {
  if (const BlockType* block = block_type(dtype)) return {block->elements, block->bytes};
  return {1, dtype_bits(dtype) / 8};
}

std::optional<int64_t> dense_bytes(DType dtype, std::span<const int64_t> shape) {
  if (is_packed_type(dtype)) return packed_bytes(dtype, shape);
  const DTypeUnit unit = unit_of(dtype);
  int64_t bytes = unit.bytes;
  bool empty = false;
  for (size_t i = 0; i < shape.size(); ++i) {
    int64_t units = shape[i];
    if (i + 1 == shape.size()) {
      if (units % unit.elements != 0) return std::nullopt;
      units /= unit.elements;
    }
    if (units < 0) return std::nullopt;
    if (units == 0) {  // left out of the product, so that no part of it can overflow
      empty = true;
    } else if (__builtin_mul_overflow(bytes, units, &bytes)) {
      return std::nullopt;
    }
  }
  if (shape.empty() && unit.elements != 1) return std::nullopt;
  return empty ? 0 : bytes;
}

std::string shape_string(std::span<const int64_t> shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    if (i > 0) text += ", ";
    text += std::to_string(shape[i]);
  }
  return text + "]";
}

uint16_t f32_to_bf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) {
    // Rounding could carry a NaN into infinity; cut it and set the quiet bit instead.
    return static_cast<uint16_t>((bits >> 16) | 0x0040u);
  }
  const uint32_t round = 0x7fffu + ((bits >> 16) & 1u);  // ties go to the even neighbour
  return static_cast<uint16_t>((bits + round) >> 16);
}

float f16_to_f32(uint16_t value) {
  const uint32_t sign = static_cast<uint32_t>(value & 0x8000u) << 16;
  const uint32_t exponent = (value >> 10) & 0x1fu;
  const uint32_t mantissa = value & 0x3ffu;
  if (exponent == 0x1fu) {  // infinity and NaN
    return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  }
  if (exponent == 0) {  // zero and subnormals: mantissa * 2^-24, exact in F32
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return std::bit_cast<float>(std::bit_cast<uint32_t>(magnitude) | sign);
  }
  return std::bit_cast<float>(sign | ((exponent + 112u) << 23) | (mantissa << 13));
}

uint16_t f32_to_f16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);   // NaN
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // from 65520 on
  if (magnitude < 0x38800000u) {  // below 2^-14: a step of 0.5 + x is 2^-24, as of a subnormal
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3f000000u));
  }
  const uint32_t rounded = magnitude + 0xfffu + (magnitude >> 13 & 1u);  // to nearest even
  return static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

}  // namespace chimera
