#include "compute/tensor/block_types.h"

#include <array>
#include <cmath>
#include <cstring>

#include "compute/tensor/k_blocks.h"

namespace chimera {
namespace {

constexpr int64_t kSmall = 32;   // elements of the simple types
constexpr int64_t kSuper = 256;  // of the K types
constexpr int64_t kNarrow = 16;  // of NVFP4
// No code times a larger scale would be sure to fit F32.
constexpr float kMostScale = 0x1p118f;

// 12 * 2^(252 - 128) is the largest MXFP4 value that F32 holds; exponents above may overflow.
constexpr uint8_t kMostExponent = 252;

float half_at(const uint8_t* bytes) {
  uint16_t half;
  std::memcpy(&half, bytes, sizeof(half));
  return f16_to_f32(half);
}

/// Sixteen bytes hold elements 0 to 15 in their low halves, 16 to 31 in their high ones.
template <class Value>
void widen_nibbles(const uint8_t* codes, float* out, const Value& value) {
  for (size_t i = 0; i < 16; ++i) {
    out[i] = value(i, codes[i] & 15);
    out[i + 16] = value(i + 16, codes[i] >> 4);
  }
}

void widen_q4_0(const uint8_t* b, float* out) {
  const float d = half_at(b);
  widen_nibbles(b + 2, out, [d](size_t, int q) { return d * static_cast<float>(q - 8); });
}

void widen_q4_1(const uint8_t* b, float* out) {
  const float d = half_at(b), m = half_at(b + 2);
  widen_nibbles(b + 4, out, [d, m](size_t, int q) { return d * static_cast<float>(q) + m; });
}

/// The fifth bits of 32 elements.
uint32_t high_bits(const uint8_t* bytes) {
  uint32_t bits;
  std::memcpy(&bits, bytes, sizeof(bits));
  return bits;
}

int fifth(uint32_t bits, size_t i) { return static_cast<int>(bits >> i & 1) * 16; }

void widen_q5_0(const uint8_t* b, float* out) {
  const float d = half_at(b);
  const uint32_t high = high_bits(b + 2);
  widen_nibbles(b + 6, out,
                [=](size_t i, int q) { return d * static_cast<float>((q | fifth(high, i)) - 16); });
}

void widen_q5_1(const uint8_t* b, float* out) {
  const float d = half_at(b), m = half_at(b + 2);
  const uint32_t high = high_bits(b + 4);
  widen_nibbles(b + 8, out,
                [=](size_t i, int q) { return d * static_cast<float>(q | fifth(high, i)) + m; });
}

void widen_q8_0(const uint8_t* b, float* out) {
  const float d = half_at(b);
  for (size_t i = 0; i < kSmall; ++i)
    out[i] = d * static_cast<float>(static_cast<int8_t>(b[2 + i]));
}

void widen_iq4_nl(const uint8_t* b, float* out) {
  const float d = half_at(b);
  widen_nibbles(b + 2, out, [d](size_t, int q) {
    return d * static_cast<float>(kIq4NlIntegers[static_cast<size_t>(q)]);
  });
}

void widen_mxfp4(const uint8_t* b, float* out) {
  const float half = std::ldexp(1.0f, static_cast<int>(b[0]) - 128);
  widen_nibbles(b + 1, out, [half](size_t, int q) {  // there is a zero of either sign
    const float magnitude = half * static_cast<float>(kMxfp4Integers[static_cast<size_t>(q & 7)]);
    return (q & 8) != 0 ? -magnitude : magnitude;
  });
}

float float_at(const uint8_t* bytes) {
  float value;
  std::memcpy(&value, bytes, sizeof(value));
  return value;
}

void widen_int4(const uint8_t* b, float* out) {
  const float s = float_at(b);
  widen_nibbles(b + 4, out, [s](size_t, int q) { return s * static_cast<float>(q - 8); });
}

void widen_int8(const uint8_t* b, float* out) {
  const float s = float_at(b);
  for (size_t i = 0; i < kSmall; ++i)
    out[i] = s * static_cast<float>(static_cast<int8_t>(b[4 + i]));
}

void widen_int4_affine(const uint8_t* b, float* out) {
  const float s = float_at(b), m = float_at(b + 4);
  widen_nibbles(b + 8, out, [=](size_t, int q) { return s * static_cast<float>(q) + m; });
}

void widen_int8_affine(const uint8_t* b, float* out) {
  const float s = float_at(b), m = float_at(b + 4);
  for (size_t i = 0; i < kSmall; ++i) out[i] = s * static_cast<float>(b[8 + i]) + m;
}

void widen_nvfp4(const uint8_t* b, float* out) {
  static constexpr std::array<float, 8> kValues{0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f};
  const float s = float_at(b);
  for (size_t i = 0; i < kNarrow; ++i) {
    const int q = i % 2 == 0 ? b[4 + i / 2] & 15 : b[4 + i / 2] >> 4;
    const float magnitude = s * kValues[static_cast<size_t>(q & 7)];
    out[i] = (q & 8) != 0 ? -magnitude : magnitude;
  }
}

// In the order of DType.
constexpr std::array kTypes{
    BlockType{DType::kQ4_0, "Q4_0", 2, kSmall, 18, 1, {0, 0}, widen_q4_0},
    BlockType{DType::kQ4_1, "Q4_1", 3, kSmall, 20, 2, {0, 2}, widen_q4_1},
    BlockType{DType::kQ5_0, "Q5_0", 6, kSmall, 22, 1, {0, 0}, widen_q5_0},
    BlockType{DType::kQ5_1, "Q5_1", 7, kSmall, 24, 2, {0, 2}, widen_q5_1},
    BlockType{DType::kQ8_0, "Q8_0", 8, kSmall, 34, 1, {0, 0}, widen_q8_0},
    BlockType{DType::kQ2_K, "Q2_K", 10, kSuper, 84, 2, {80, 82}, widen_q2_k},
    BlockType{DType::kQ3_K, "Q3_K", 11, kSuper, 110, 1, {108, 0}, widen_q3_k},
    BlockType{DType::kQ4_K, "Q4_K", 12, kSuper, 144, 2, {0, 2}, widen_q4_k},
    BlockType{DType::kQ5_K, "Q5_K", 13, kSuper, 176, 2, {0, 2}, widen_q5_k},
    BlockType{DType::kQ6_K, "Q6_K", 14, kSuper, 210, 1, {208, 0}, widen_q6_k},
    BlockType{DType::kIQ4_NL, "IQ4_NL", 20, kSmall, 18, 1, {0, 0}, widen_iq4_nl},
    BlockType{DType::kMXFP4, "MXFP4", 39, kSmall, 17, 0, {0, 0}, widen_mxfp4},
    BlockType{DType::kInt4, "INT4", {}, kSmall, 20, 1, {0, 0}, widen_int4},
    BlockType{DType::kInt8, "INT8", {}, kSmall, 36, 1, {0, 0}, widen_int8},
    BlockType{DType::kInt4Affine, "INT4_AFFINE", {}, kSmall, 24, 2, {0, 4}, widen_int4_affine},
    BlockType{DType::kInt8Affine, "INT8_AFFINE", {}, kSmall, 40, 2, {0, 4}, widen_int8_affine},
    BlockType{DType::kNVFP4, "NVFP4", {}, kNarrow, 12, 1, {0, 0}, widen_nvfp4},
};

bool is_finite_block(const BlockType& type, const uint8_t* block) {
  constexpr uint16_t kExponent = 0x7c00;
  for (int i = 0; i < type.scale_count; ++i) {
    const uint8_t* at = block + type.scales[static_cast<size_t>(i)];
    if (!type.gguf_type) {
      if (!(std::fabs(float_at(at)) <= kMostScale)) return false;
      continue;
    }
    uint16_t half;
    std::memcpy(&half, at, sizeof(half));
    if ((half & kExponent) == kExponent) return false;
  }
  return type.dtype != DType::kMXFP4 || block[0] <= kMostExponent;
}

}  // namespace

std::span<const BlockType> block_types() { return kTypes; }

const BlockType* block_type(DType dtype) {
  if (!is_block_type(dtype)) return nullptr;
  const auto at = static_cast<size_t>(dtype) - static_cast<size_t>(DType::kQ4_0);
  return at < kTypes.size() ? &kTypes[at] : nullptr;
}

void widen_blocks(DType dtype, const std::byte* from, int64_t elements, float* out) {
  const BlockType& type = *block_type(dtype);
  const auto* block = reinterpret_cast<const uint8_t*>(from);
  for (int64_t at = 0; at < elements; at += type.elements, block += type.bytes)
    type.widen(block, out + at);
}

int64_t first_non_finite_block(DType dtype, std::span<const std::byte> blocks) {
  const BlockType& type = *block_type(dtype);
  const auto bytes = static_cast<size_t>(type.bytes);
  for (size_t at = 0; at + bytes <= blocks.size(); at += bytes) {
    if (!is_finite_block(type, reinterpret_cast<const uint8_t*>(blocks.data() + at)))
      return static_cast<int64_t>(at / bytes);
  }
  return -1;
}

}  // namespace chimera
