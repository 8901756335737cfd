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

constexpr size_t kCodeBytes = kBlockInputs / 2;

/// GGUF: a scale, then sixteen bytes with numbers 0 to 15 in their low halves, 16 to 31 in their
/// high ones.
struct GgufBlocks {
  const std::byte* blocks;
  int64_t rows, cols;

  const std::byte* at(int64_t row, int64_t b) const {
    return blocks + (row * blocks_of(cols) + b) * kGgufBlock;
  }
  const std::byte* codes(int64_t row, int64_t b) const { return at(row, b) + 1; }
  int scale(int64_t row, int64_t b) const { return std::to_integer<int>(*at(row, b)); }
  static size_t low_place(size_t byte) { return byte; }
  static size_t high_place(size_t byte) { return byte + kCodeBytes; }
};

/// Hugging Face: scales apart from the codes, two numbers next to one another in a byte, the low
/// half first.
struct HuggingFaceBlocks {
  const QuantMatrix& m;
  int64_t rows, cols;

  const std::byte* codes(int64_t row, int64_t b) const {
    return m.codes + row * m.code_step + b * kMxfp4BlockBytes;
  }
  int scale(int64_t row, int64_t b) const {
    return std::to_integer<int>(m.scales[row * m.scale_step + b]);
  }
  static size_t low_place(size_t byte) { return 2 * byte; }
  static size_t high_place(size_t byte) { return 2 * byte + 1; }
};

/// Places of the integers of a block, less 8.
template <class Blocks>
PackedCodes places_of(const std::byte* bytes) {
  PackedCodes out;
  for (size_t i = 0; i < kCodeBytes; ++i) {
    const auto byte = std::to_integer<int>(bytes[i]);
    out[Blocks::low_place(i)] = static_cast<int8_t>((byte & 15) - 8);
    out[Blocks::high_place(i)] = static_cast<int8_t>((byte >> 4) - 8);
  }
  return out;
}

/// All numbers zero, of either sign.
bool is_zero(const std::byte* bytes) {
  return std::all_of(bytes, bytes + kCodeBytes,
                     [](std::byte b) { return (b & std::byte{0x77}) == std::byte{0}; });
}

/// Calls op(row, block) for every block that is not all zeros.
template <class Blocks, class Op>
void for_blocks(const Blocks& from, Op op) {
  for (int64_t row = 0; row < from.rows; ++row)
    for (int64_t b = 0; b < blocks_of(from.cols); ++b) {
      if (!is_zero(from.codes(row, b))) op(row, b);
    }
}

template <class Blocks>
Result<std::optional<Matrix>> repack_from(const Blocks& from) {
  int least = 255, most = 0;
  for_blocks(from, [&](int64_t row, int64_t b) {
    least = std::min(least, from.scale(row, b));
    most = std::max(most, from.scale(row, b));
  });
  // Matrix::scale has to be a normal number, and so has its product with the smallest scale.
  const int unit = std::max(most - kE2m1Bias - kMostHalfExponent, -126 - kLeastHalfExponent);
  if (most >= least && (least - kE2m1Bias - unit < kLeastHalfExponent || least - kE2m1Bias < -126))
    return std::optional<Matrix>();
  std::shared_ptr<std::byte[]> memory;
  Result<Matrix> out = zeroed_matrix(from.rows, from.cols, WeightFormat::kMXFP4, memory);
  if (!out.ok()) return out.status();
  out->scale = std::ldexp(1.0f, unit);
  const int64_t bytes = info_of(WeightFormat::kMXFP4).block_bytes;
  const int64_t across = blocks_of(from.cols);
  for_blocks(from, [&](int64_t row, int64_t b) {
    const auto n = static_cast<size_t>(row % kPanelOutputs);
    std::byte* block = memory.get() + (row / kPanelOutputs * across + b) * bytes;
    const uint16_t half = f32_to_f16(std::ldexp(1.0f, from.scale(row, b) - kE2m1Bias - unit));
    std::memcpy(block + sizeof(half) * n, &half, sizeof(half));
    store_packed_codes(WeightFormat::kMXFP4, places_of<Blocks>(from.codes(row, b)), n,
                       block + kPanelScaleBytes);
  });
  return std::optional(std::move(*out));
}

}  // namespace

Result<std::optional<Matrix>> repack_mxfp4_blocks(const std::byte* blocks, int64_t rows,
                                                  int64_t cols) {
  return repack_from(GgufBlocks{blocks, rows, cols});
}

Result<std::optional<Matrix>> repack_mxfp4(const QuantMatrix& from) {
  return repack_from(HuggingFaceBlocks{from, from.rows, from.cols});
}

}  // namespace chimera
