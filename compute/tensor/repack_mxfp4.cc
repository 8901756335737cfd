#include <algorithm>
#include <cmath>
#include <cstring>

#include "compute/tensor/packed_layout.h"
#include "compute/tensor/repack.h"

namespace chimera {
namespace {

// Exponents of half-precision scales: subnormal ones are powers of two just as well.
constexpr int kMostHalfExponent = 13, kLeastHalfExponent = -24;
constexpr int kE2m1Bias = 128;  // the integers are E2M1 twice: 127 + 1
constexpr int64_t kGgufBlock = 17;

/// Places of the integers of a block, less 8.
PackedCodes places_of(const std::byte* bytes) {
  PackedCodes out;
  for (size_t i = 0; i < kBlockInputs / 2; ++i) {
    const auto byte = std::to_integer<int>(bytes[i]);
    out[i] = static_cast<int8_t>((byte & 15) - 8);
    out[i + 16] = static_cast<int8_t>((byte >> 4) - 8);
  }
  return out;
}

/// All numbers zero, of either sign.
bool is_zero(const std::byte* bytes) {
  return std::all_of(bytes, bytes + kBlockInputs / 2,
                     [](std::byte b) { return (b & std::byte{0x77}) == std::byte{0}; });
}

/// Calls op(row, block, codes, scale byte) for every block that is not all zeros.
template <class Op>
void for_blocks(const std::byte* blocks, int64_t rows, int64_t cols, Op op) {
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t b = 0; b < blocks_of(cols); ++b, blocks += kGgufBlock) {
      if (!is_zero(blocks + 1)) op(row, b, blocks + 1, std::to_integer<int>(*blocks));
    }
}

}  // namespace

Result<std::optional<Matrix>> repack_mxfp4_blocks(const std::byte* blocks, int64_t rows,
                                                  int64_t cols) {
  int least = 255, most = 0;
  for_blocks(blocks, rows, cols, [&](int64_t, int64_t, const std::byte*, int scale) {
    least = std::min(least, scale);
    most = std::max(most, scale);
  });
  // Matrix::scale has to be a normal number, and so has its product with the smallest scale.
  const int unit = std::max(most - kE2m1Bias - kMostHalfExponent, -126 - kLeastHalfExponent);
  if (most >= least && (least - kE2m1Bias - unit < kLeastHalfExponent || least - kE2m1Bias < -126))
    return std::optional<Matrix>();
  std::shared_ptr<std::byte[]> memory;
  Result<Matrix> out = zeroed_matrix(rows, cols, WeightFormat::kMXFP4, memory);
  if (!out.ok()) return out.status();
  out->scale = std::ldexp(1.0f, unit);
  const int64_t bytes = info_of(WeightFormat::kMXFP4).block_bytes;
  const int64_t across = blocks_of(cols);
  for_blocks(blocks, rows, cols, [&](int64_t row, int64_t b, const std::byte* codes, int scale) {
    const auto n = static_cast<size_t>(row % kPanelOutputs);
    std::byte* block = memory.get() + (row / kPanelOutputs * across + b) * bytes;
    const uint16_t half = f32_to_f16(std::ldexp(1.0f, scale - kE2m1Bias - unit));
    std::memcpy(block + sizeof(half) * n, &half, sizeof(half));
    store_packed_codes(WeightFormat::kMXFP4, places_of(codes), n, block + kPanelScaleBytes);
  });
  return std::optional(std::move(*out));
}

}  // namespace chimera
