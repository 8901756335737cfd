#include "compute/tensor/repack.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "compute/tensor/memory.h"
#include "compute/tensor/packed_layout.h"

namespace chimera {
namespace {

constexpr size_t kScaleBytes = 2;

/// Sixteen bytes hold numbers 0 to 15 in their low halves, 16 to 31 in their high ones.
PackedCodes nibbles(const std::byte* bytes, int zero) {
  PackedCodes codes;
  constexpr size_t kHalf = kBlockInputs / 2;
  for (size_t i = 0; i < kHalf; ++i) {
    const auto byte = std::to_integer<int>(bytes[i]);
    codes[i] = static_cast<int8_t>((byte & 15) - zero);
    codes[i + kHalf] = static_cast<int8_t>((byte >> 4) - zero);
  }
  return codes;
}

/// The integers of a block, which follow its scale; of IQ4_NL their places less 8.
PackedCodes codes_of(DType type, const std::byte* block) {
  PackedCodes codes;
  if (type == DType::kQ8_0) {
    std::memcpy(codes.data(), block + kScaleBytes, codes.size());
    return codes;
  }
  if (type != DType::kQ5_0) return nibbles(block + kScaleBytes, 8);
  uint32_t fifth;
  std::memcpy(&fifth, block + kScaleBytes, sizeof(fifth));
  codes = nibbles(block + kScaleBytes + sizeof(fifth), 16);
  for (size_t i = 0; i < codes.size(); ++i)
    codes[i] = static_cast<int8_t>(codes[i] + static_cast<int>(fifth >> i & 1) * 16);
  return codes;
}

float float_at(const std::byte* bytes) {
  float value;
  std::memcpy(&value, bytes, sizeof(value));
  return value;
}

/// The zero point of a block of INT4_AFFINE, from 0 to 16; nothing when there is none.
std::optional<int> zero_of(const std::byte* block) {
  const float scale = float_at(block), offset = float_at(block + 4);
  const float zero = scale == 0.0f ? -offset : -offset / scale;
  if (!(zero >= 0.0f && zero <= 16.0f) || zero != std::floor(zero)) return std::nullopt;
  return static_cast<int>(zero);
}

/// The integers of a block of INT4, INT8 or INT4_AFFINE that has them.
PackedCodes integers_of(DType type, const std::byte* block) {
  PackedCodes codes;
  if (type == DType::kInt8) {
    std::memcpy(codes.data(), block + 4, codes.size());
    return codes;
  }
  const int zero = type == DType::kInt4 ? 8 : zero_of(block).value_or(0);
  return nibbles(block + (type == DType::kInt4 ? 4 : 8), zero);
}

/// Matrix::scale for these scales, as pack_matrix chooses it; nothing when a block has no integers.
std::optional<float> scale_unit(DType type, const std::byte* blocks, int64_t count) {
  constexpr int kRepackedScaleExponent = 13;
  float most = 0.0f;
  for (int64_t i = 0; i < count; ++i, blocks += chimera::unit_of(type).bytes) {
    if (type == DType::kInt4Affine && !zero_of(blocks)) return std::nullopt;
    const float scale = std::fabs(float_at(blocks));
    if (std::isfinite(scale)) most = std::max(most, scale);
  }
  if (most == 0.0f) return 1.0f;
  return std::ldexp(1.0f, std::max(-126, std::ilogb(most) - kRepackedScaleExponent));
}

}  // namespace

Result<Matrix> zeroed_matrix(int64_t rows, int64_t cols, WeightFormat format,
                             std::shared_ptr<std::byte[]>& memory) {
  Matrix out;
  out.format = format;
  out.rows = rows;
  out.cols = cols;
  memory = allocate_weights(out.bytes());
  if (memory == nullptr) return no_memory("a weight", out.bytes());
  std::fill_n(memory.get(), out.bytes(), std::byte{0});
  out.data = memory.get();
  out.owner = memory;
  return out;
}

bool repacks_exactly(DType from, WeightFormat to) {
  return ((from == DType::kQ8_0 || from == DType::kQ5_0) && to == WeightFormat::kQ8) ||
         (from == DType::kQ4_0 && to == WeightFormat::kQ4) ||
         (from == DType::kIQ4_NL && to == WeightFormat::kIQ4_NL);
}

bool repacks_integers(DType from, WeightFormat to) {
  if (from == DType::kInt4) return to == WeightFormat::kQ4 || to == WeightFormat::kQ8;
  return to == WeightFormat::kQ8 && (from == DType::kInt8 || from == DType::kInt4Affine);
}

Result<std::optional<Matrix>> repack_integers(DType from, const std::byte* blocks, int64_t rows,
                                              int64_t cols, WeightFormat to) {
  const int64_t across = blocks_of(cols);
  const int64_t from_bytes = unit_of(from).bytes;
  const int64_t to_bytes = info_of(to).block_bytes;
  const std::optional<float> unit = scale_unit(from, blocks, rows * across);
  if (!unit) return std::optional<Matrix>();
  std::shared_ptr<std::byte[]> memory;
  Result<Matrix> out = zeroed_matrix(rows, cols, to, memory);
  if (!out.ok()) return out.status();
  out->scale = *unit;
  for (int64_t row = 0; row < rows; ++row) {
    const auto n = static_cast<size_t>(row % kPanelOutputs);
    std::byte* panel = memory.get() + row / kPanelOutputs * across * to_bytes;
    for (int64_t b = 0; b < across; ++b) {
      const std::byte* block = blocks + (row * across + b) * from_bytes;
      const uint16_t half = f32_to_f16(float_at(block) / *unit);
      std::memcpy(panel + b * to_bytes + kScaleBytes * n, &half, kScaleBytes);
      store_packed_codes(to, integers_of(from, block), n, panel + b * to_bytes + kPanelScaleBytes);
    }
  }
  return std::optional(std::move(*out));
}

Result<Matrix> repack_blocks(DType from, const std::byte* blocks, int64_t rows, int64_t cols,
                             WeightFormat to) {
  std::shared_ptr<std::byte[]> memory;
  Result<Matrix> out = zeroed_matrix(rows, cols, to, memory);
  if (!out.ok()) return out;
  const int64_t across = blocks_of(cols);
  const int64_t from_bytes = unit_of(from).bytes;
  const int64_t to_bytes = info_of(to).block_bytes;
  for (int64_t row = 0; row < rows; ++row) {
    const auto n = static_cast<size_t>(row % kPanelOutputs);
    std::byte* panel = memory.get() + row / kPanelOutputs * across * to_bytes;
    for (int64_t b = 0; b < across; ++b) {
      const std::byte* block = blocks + (row * across + b) * from_bytes;
      std::memcpy(panel + b * to_bytes + kScaleBytes * n, block, kScaleBytes);
      store_packed_codes(to, codes_of(from, block), n, panel + b * to_bytes + kPanelScaleBytes);
    }
  }
  return out;
}

}  // namespace chimera
