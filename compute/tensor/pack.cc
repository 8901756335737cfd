#include "compute/tensor/pack.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "compute/tensor/k_blocks.h"
#include "compute/tensor/packed_layout.h"

namespace chimera {
namespace {

using Block = std::array<float, kBlockInputs>;
using Codes = PackedCodes;

// Block scales of a matrix reach up to this: 2^13 leaves a factor of 8 to the largest
// half-precision number and 2^27 to the smallest normal one.
constexpr int kScaleExponent = 13;
// Largest integers.
constexpr float kMostQ8 = 127.0f;
constexpr float kMostQ4 = 8.0f;  // downwards; 7 upwards

constexpr uint16_t kHalfNan = 0x7e00;

bool all_finite(const Block& block) {
  return std::all_of(block.begin(), block.end(), [](float v) { return std::isfinite(v); });
}

float largest(const Block& block) {
  float most = 0.0f;
  for (const float v : block) most = std::max(most, std::fabs(v));
  return most;
}

/// The nearest half-precision number that is not smaller. REQUIRES: 0 <= v, in range.
uint16_t half_not_below(float v) {
  const uint16_t half = f32_to_f16(v);
  return f16_to_f32(half) < v ? static_cast<uint16_t>(half + 1) : half;
}

/// Integers of a block under `scale`, within [least, most].
void round_block(const Block& block, float scale, float least, float most, Codes& codes) {
  const float factor = scale == 0.0f ? 0.0f : 1.0f / scale;
  for (size_t i = 0; i < block.size(); ++i) {
    const float q = std::nearbyint(std::clamp(block[i] * factor, least, most));
    codes[i] = static_cast<int8_t>(q);
  }
}

double squared_error(const Block& block, const Codes& codes, float scale) {
  double sum = 0.0;
  for (size_t i = 0; i < block.size(); ++i) {
    const double error = double{block[i]} - static_cast<double>(codes[i]) * scale;
    sum += error * error;
  }
  return sum;
}

/// `unit` is Matrix::scale. Returns the block's scale in half precision.
uint16_t quantize_q8(const Block& block, float unit, Codes& codes) {
  const uint16_t half = half_not_below(largest(block) / (kMostQ8 * unit));
  round_block(block, f16_to_f32(half) * unit, -kMostQ8, kMostQ8, codes);
  return half;
}

/// Sixteen steps reach one further down than up, so the weight of the largest magnitude is put on
/// that side (the scale takes its sign). Where exactly the ends of the range lie is tried: cutting
/// a single outlier off can serve the other 31 better.
uint16_t quantize_q4(const Block& block, float unit, Codes& codes) {
  const auto by_magnitude = [](float a, float b) { return std::fabs(a) < std::fabs(b); };
  const float extreme = *std::max_element(block.begin(), block.end(), by_magnitude);
  uint16_t best = 0;
  double least = std::numeric_limits<double>::infinity();
  codes.fill(0);
  Codes tried;
  const auto consider = [&](float scale) {
    const uint16_t half = f32_to_f16(scale / unit);
    const float rounded = f16_to_f32(half) * unit;
    round_block(block, rounded, -kMostQ4, kMostQ4 - 1.0f, tried);
    const double error = squared_error(block, tried, rounded);
    if (error >= least) return;
    least = error;
    best = half;
    codes = tried;
  };
  if (extreme == 0.0f) return best;
  for (const float ends : {7.0f, 7.5f, 8.0f, 8.5f, 9.0f, 9.5f}) consider(-extreme / ends);
  // The scale that fits the best integers so far in the least-squares sense.
  double product = 0.0;
  double square = 0.0;
  for (size_t i = 0; i < block.size(); ++i) {
    product += double{block[i]} * codes[i];
    square += static_cast<double>(codes[i]) * codes[i];
  }
  if (square > 0.0) consider(static_cast<float>(product / square));
  return best;
}

/// A power of two that brings the largest block scale near 2^kScaleExponent.
float unit_of(const Matrix& from, float most_code) {
  float most = 0.0f;
  std::vector<float> row(static_cast<size_t>(from.cols));
  for (int64_t r = 0; r < from.rows; ++r) {
    widen_row(from, r, row.data());
    for (const float v : row) {
      if (std::isfinite(v)) most = std::max(most, std::fabs(v));
    }
  }
  if (most == 0.0f) return 1.0f;
  // Not so small that a unit would be subnormal: weights below 2^-100 count as zero.
  return std::ldexp(1.0f, std::max(-126, std::ilogb(most / most_code) - kScaleExponent));
}

/// One block of a panel.
void pack_block(const std::vector<float>& rows, int64_t cols, int64_t outputs, int64_t block,
                WeightFormat format, float unit, std::byte* to) {
  std::array<uint16_t, kPanelOutputs> scales{};
  std::byte* integers = to + kPanelScaleBytes;
  const int64_t begin = block * kBlockInputs;
  const int64_t count = std::min(kBlockInputs, cols - begin);
  for (int64_t n = 0; n < kPanelOutputs; ++n) {
    Block values{};
    Codes codes{};
    const auto at = static_cast<size_t>(n);
    if (n < outputs) std::copy_n(rows.data() + n * cols + begin, count, values.data());
    if (!all_finite(values)) {
      scales[at] = kHalfNan;
    } else if (format == WeightFormat::kQ8) {
      scales[at] = quantize_q8(values, unit, codes);
    } else {
      scales[at] = quantize_q4(values, unit, codes);
    }
    store_packed_codes(format, codes, at, integers);
  }
  std::memcpy(to, scales.data(), sizeof(scales));
}

void widen_packed_row(const Matrix& from, int64_t row, float* out) {
  const WeightFormatInfo& info = info_of(from.format);
  const int64_t blocks = blocks_of(from.cols);
  const auto n = static_cast<size_t>(row % kPanelOutputs);
  const auto* block =
      static_cast<const std::byte*>(from.data) + row / kPanelOutputs * blocks * info.block_bytes;
  for (int64_t b = 0; b < blocks; ++b, block += info.block_bytes) {
    uint16_t half;
    std::memcpy(&half, block + 2 * n, sizeof(half));
    const float scale = f16_to_f32(half) * from.scale;
    const std::byte* integers = block + kPanelScaleBytes;
    const int64_t begin = b * kBlockInputs;
    for (int64_t k = 0; k < std::min(kBlockInputs, from.cols - begin); ++k) {
      const auto at = static_cast<size_t>(k);
      int code;
      if (from.format == WeightFormat::kQ8) {
        code = static_cast<int8_t>(integers[q8_place(n, at)]);
      } else {
        const auto byte = std::to_integer<unsigned>(integers[q4_place(n, at)]);
        const unsigned bits = q4_high(at) ? byte >> 4 : byte & 15;
        code = is_table_format(from.format) ? integers_of(from.format)[bits]
                                            : static_cast<int>(bits) - 8;
      }
      out[begin + k] = static_cast<float>(code) * scale;
    }
  }
}

}  // namespace

Result<Matrix> pack_matrix(const Matrix& from, WeightFormat format) {
  const WeightFormatInfo& info = info_of(format);
  std::shared_ptr<std::byte[]> memory;
  Result<Matrix> out = zeroed_matrix(from.rows, from.cols, format, memory);
  if (!out.ok()) return out;
  out->scale = unit_of(from, format == WeightFormat::kQ8 ? kMostQ8 : kMostQ4);
  const int64_t blocks = blocks_of(from.cols);
  std::vector<float> rows(static_cast<size_t>(kPanelOutputs * from.cols));
  std::byte* to = memory.get();
  for (int64_t panel = 0; panel < panels_of(from.rows); ++panel) {
    const int64_t first = panel * kPanelOutputs;
    const int64_t outputs = std::min(kPanelOutputs, from.rows - first);
    for (int64_t n = 0; n < outputs; ++n) widen_row(from, first + n, rows.data() + n * from.cols);
    for (int64_t b = 0; b < blocks; ++b, to += info.block_bytes)
      pack_block(rows, from.cols, outputs, b, format, out->scale, to);
  }
  return out;
}

void widen_row(const Matrix& from, int64_t row, float* out) {
  switch (from.format) {
    case WeightFormat::kF32:
      std::memcpy(out, static_cast<const float*>(from.data) + row * from.cols,
                  static_cast<size_t>(from.cols) * sizeof(float));
      return;
    case WeightFormat::kBF16: {
      const auto* values = static_cast<const uint16_t*>(from.data) + row * from.cols;
      for (int64_t i = 0; i < from.cols; ++i) out[i] = bf16_to_f32(values[i]);
      return;
    }
    case WeightFormat::kF16: {
      const auto* values = static_cast<const uint16_t*>(from.data) + row * from.cols;
      for (int64_t i = 0; i < from.cols; ++i) out[i] = f16_to_f32(values[i]);
      return;
    }
    case WeightFormat::kQ8:
    case WeightFormat::kQ4:
    case WeightFormat::kIQ4_NL:
    case WeightFormat::kMXFP4:
      return widen_packed_row(from, row, out);
    case WeightFormat::kQ2_K:
    case WeightFormat::kQ3_K:
    case WeightFormat::kQ4_K:
    case WeightFormat::kQ5_K:
    case WeightFormat::kQ6_K:
      return widen_k_row(from, row, out);
  }
}

}  // namespace chimera
