#include "compute/tensor/k_blocks.h"

#include <cstring>
#include <memory>

#include "compute/tensor/k_layout.h"
#include "compute/tensor/packed_layout.h"

namespace chimera {
namespace {

constexpr size_t kInputs = kSuperInputs;

/// One block of one output. Formats with fewer groups than 16, or without minima, use fewer of
/// both.
struct KBlock {
  uint16_t scale = 0, minimum = 0;  // half precision
  std::array<int8_t, 16> scales{}, minima{};
  std::array<uint8_t, kInputs> codes;
};

uint16_t half_bits(const uint8_t* bytes) {
  uint16_t half;
  std::memcpy(&half, bytes, sizeof(half));
  return half;
}

/// Sixty-four bytes hold 256 codes of two bits: per half of 32 bytes its lowest pairs of bits for
/// 32 inputs, then the next.
void read_pairs_of_bits(const uint8_t* bytes, KBlock& out) {
  for (size_t i = 0; i < kInputs; ++i)
    out.codes[i] = static_cast<uint8_t>(bytes[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3);
}

/// scales [16] (low half s, high half t), codes [64], scale, minimum.
void read_q2_k(const uint8_t* b, KBlock& out) {
  for (size_t g = 0; g < 16; ++g) {
    out.scales[g] = static_cast<int8_t>(b[g] & 15);
    out.minima[g] = static_cast<int8_t>(b[g] >> 4);
  }
  read_pairs_of_bits(b + 16, out);
  out.scale = half_bits(b + 80);
  out.minimum = half_bits(b + 82);
}

/// high bits [32], codes [64], scales [12] of 6 bits, scale.
void read_q3_k(const uint8_t* b, KBlock& out) {
  const uint8_t* scales = b + 96;
  for (size_t g = 0; g < 16; ++g) {
    const int low = g < 8 ? scales[g] & 15 : scales[g - 8] >> 4;
    const int top = scales[8 + g % 4] >> (g / 4 * 2) & 3;
    out.scales[g] = static_cast<int8_t>((low | top << 4) - 32);
  }
  read_pairs_of_bits(b + 32, out);
  for (size_t i = 0; i < kInputs; ++i)
    out.codes[i] = static_cast<uint8_t>(out.codes[i] | (b[i % 32] >> (i / 32) & 1) << 2);
  out.scale = half_bits(b + 108);
}

/// Eight pairs of 6 bits in 12 bytes.
void read_six_bit_pairs(const uint8_t* s, KBlock& out) {
  for (size_t g = 0; g < 4; ++g) {
    out.scales[g] = static_cast<int8_t>(s[g] & 63);
    out.minima[g] = static_cast<int8_t>(s[g + 4] & 63);
    out.scales[g + 4] = static_cast<int8_t>((s[g + 8] & 15) | (s[g] >> 6) << 4);
    out.minima[g + 4] = static_cast<int8_t>(s[g + 8] >> 4 | (s[g + 4] >> 6) << 4);
  }
}

/// scale, minimum, scales [12], with Q5_K the fifth bits [32], codes [128].
template <bool kFive>
void read_q45_k(const uint8_t* b, KBlock& out) {
  out.scale = half_bits(b);
  out.minimum = half_bits(b + 2);
  read_six_bit_pairs(b + 4, out);
  const uint8_t* codes = b + (kFive ? 48 : 16);
  for (size_t g = 0; g < 8; ++g) {
    for (size_t i = 0; i < 32; ++i) {
      int q = codes[g / 2 * 32 + i] >> (g % 2 * 4) & 15;
      if constexpr (kFive) q |= (b[16 + i] >> g & 1) << 4;
      out.codes[g * 32 + i] = static_cast<uint8_t>(q);
    }
  }
}

/// low bits [128], high bits [64], scales [16], scale.
void read_q6_k(const uint8_t* b, KBlock& out) {
  for (size_t i = 0; i < kInputs; ++i) {
    const size_t half = i / 128, quarter = i % 128 / 32, at = i % 32;
    const int low = b[half * 64 + quarter % 2 * 32 + at] >> (quarter / 2 * 4) & 15;
    const int top = b[128 + half * 32 + at] >> (2 * quarter) & 3;
    out.codes[i] = static_cast<uint8_t>(low | top << 4);
  }
  std::memcpy(out.scales.data(), b + 192, out.scales.size());
  out.scale = half_bits(b + 208);
}

template <WeightFormat F>
void read_block(const uint8_t* block, KBlock& out) {
  if constexpr (F == WeightFormat::kQ2_K) read_q2_k(block, out);
  if constexpr (F == WeightFormat::kQ3_K) read_q3_k(block, out);
  if constexpr (F == WeightFormat::kQ4_K) read_q45_k<false>(block, out);
  if constexpr (F == WeightFormat::kQ5_K) read_q45_k<true>(block, out);
  if constexpr (F == WeightFormat::kQ6_K) read_q6_k(block, out);
}

/// Products of these short numbers fit 24 bits: only the subtraction rounds.
template <WeightFormat F>
void widen(const KBlock& block, float* out) {
  constexpr KLayout kLayout = k_layout(F);
  const float scale = f16_to_f32(block.scale), minimum = f16_to_f32(block.minimum);
  constexpr auto kGroup = static_cast<size_t>(kLayout.group);
  for (size_t g = 0; g < kInputs / kGroup; ++g) {
    const float of_group = scale * static_cast<float>(block.scales[g]);
    const float least = minimum * static_cast<float>(block.minima[g]);
    const uint8_t* codes = block.codes.data() + g * kGroup;
    float* to = out + g * kGroup;
    if constexpr (kLayout.minima) {
      for (size_t i = 0; i < kGroup; ++i) to[i] = of_group * static_cast<float>(codes[i]) - least;
    } else {
      for (size_t i = 0; i < kGroup; ++i)
        to[i] = of_group * static_cast<float>(codes[i] - kLayout.offset);
    }
  }
}

template <WeightFormat F>
void widen_block(const uint8_t* block, float* out) {
  KBlock integers;
  read_block<F>(block, integers);
  widen<F>(integers, out);
}

/// Calls op(integer of the block, its place in a panel's) for all that stand in front of the codes.
template <WeightFormat F, class Block, class Op>
void for_scales(Block& block, int64_t output, Op op) {
  constexpr KLayout kLayout = k_layout(F);
  op(block.scale, 2 * output);
  if constexpr (kLayout.minima) op(block.minimum, kPanelScaleBytes + 2 * output);
  for (int64_t g = 0; g < kLayout.groups(); ++g) {
    const int64_t at = k_scale_place(g, output);
    op(block.scales[static_cast<size_t>(g)], kLayout.scales_at() + at);
    if constexpr (kLayout.minima)
      op(block.minima[static_cast<size_t>(g)], kLayout.minima_at() + at);
  }
}

/// Into output `output` of a panel's block, whose bits of it are zero.
template <WeightFormat F>
void store(const KBlock& block, int64_t output, std::byte* to) {
  constexpr KLayout kLayout = k_layout(F);
  for_scales<F>(block, output, [to](const auto& integer, int64_t at) {
    std::memcpy(to + at, &integer, sizeof(integer));
  });
  std::byte* codes = to + kLayout.codes_at() + output * 4;
  const uint8_t* from = block.codes.data();
  for (int64_t i = 0; i < kSuperInputs; i += kBlockInputs, codes += kLayout.code_bytes())
    for (int quad = 0; quad < 8; ++quad)
      for (int j = 0; j < 4; ++j, ++from) {
        constexpr unsigned kLow = (1u << kLayout.low_bits) - 1;
        const KPlace low = k_low_place(kLayout, quad);
        codes[low.byte + j] |= static_cast<std::byte>((*from & kLow) << low.shift);
        if constexpr (kLayout.high_bits > 0) {
          const KPlace high = k_high_place(kLayout, quad);
          codes[high.byte + j] |= static_cast<std::byte>(*from >> kLayout.low_bits << high.shift);
        }
      }
}

/// The same back.
template <WeightFormat F>
void fetch(const std::byte* from, int64_t output, KBlock& block) {
  constexpr KLayout kLayout = k_layout(F);
  for_scales<F>(block, output, [from](auto& integer, int64_t at) {
    std::memcpy(&integer, from + at, sizeof(integer));
  });
  const std::byte* codes = from + kLayout.codes_at() + output * 4;
  uint8_t* to = block.codes.data();
  for (int64_t i = 0; i < kSuperInputs; i += kBlockInputs, codes += kLayout.code_bytes())
    for (int quad = 0; quad < 8; ++quad)
      for (int j = 0; j < 4; ++j, ++to) {
        constexpr unsigned kLow = (1u << kLayout.low_bits) - 1;
        const KPlace low = k_low_place(kLayout, quad);
        unsigned code = std::to_integer<unsigned>(codes[low.byte + j]) >> low.shift & kLow;
        if constexpr (kLayout.high_bits > 0) {
          constexpr unsigned kHigh = (1u << kLayout.high_bits) - 1;
          const KPlace high = k_high_place(kLayout, quad);
          code |= (std::to_integer<unsigned>(codes[high.byte + j]) >> high.shift & kHigh)
                  << kLayout.low_bits;
        }
        *to = static_cast<uint8_t>(code);
      }
}

template <WeightFormat F>
void repack(const std::byte* blocks, int64_t from_bytes, const Matrix& shape, std::byte* to) {
  constexpr int64_t kBytes = k_layout(F).bytes();
  const int64_t across = blocks_of(F, shape.cols);
  KBlock block;
  for (int64_t row = 0; row < shape.rows; ++row) {
    std::byte* panel = to + row / kPanelOutputs * across * kBytes;
    for (int64_t b = 0; b < across; ++b, blocks += from_bytes) {
      read_block<F>(reinterpret_cast<const uint8_t*>(blocks), block);
      store<F>(block, row % kPanelOutputs, panel + b * kBytes);
    }
  }
}

template <WeightFormat F>
void widen_row_of(const Matrix& from, int64_t row, float* out) {
  constexpr KLayout kLayout = k_layout(F);
  const int64_t across = blocks_of(F, from.cols);
  const auto* block =
      static_cast<const std::byte*>(from.data) + row / kPanelOutputs * across * kLayout.bytes();
  KBlock integers;
  for (int64_t b = 0; b < across; ++b, block += kLayout.bytes(), out += kInputs) {
    fetch<F>(block, row % kPanelOutputs, integers);
    widen<F>(integers, out);
  }
}

/// Calls op.operator()<F>() with the K format `format`.
template <class Op>
void with_format(WeightFormat format, Op op) {
  switch (format) {
    case WeightFormat::kQ2_K:
      return op.template operator()<WeightFormat::kQ2_K>();
    case WeightFormat::kQ3_K:
      return op.template operator()<WeightFormat::kQ3_K>();
    case WeightFormat::kQ4_K:
      return op.template operator()<WeightFormat::kQ4_K>();
    case WeightFormat::kQ5_K:
      return op.template operator()<WeightFormat::kQ5_K>();
    default:
      return op.template operator()<WeightFormat::kQ6_K>();
  }
}

}  // namespace

void widen_q2_k(const uint8_t* block, float* out) { widen_block<WeightFormat::kQ2_K>(block, out); }
void widen_q3_k(const uint8_t* block, float* out) { widen_block<WeightFormat::kQ3_K>(block, out); }
void widen_q4_k(const uint8_t* block, float* out) { widen_block<WeightFormat::kQ4_K>(block, out); }
void widen_q5_k(const uint8_t* block, float* out) { widen_block<WeightFormat::kQ5_K>(block, out); }
void widen_q6_k(const uint8_t* block, float* out) { widen_block<WeightFormat::kQ6_K>(block, out); }

std::optional<WeightFormat> k_format(DType dtype) {
  switch (dtype) {
    case DType::kQ2_K:
      return WeightFormat::kQ2_K;
    case DType::kQ3_K:
      return WeightFormat::kQ3_K;
    case DType::kQ4_K:
      return WeightFormat::kQ4_K;
    case DType::kQ5_K:
      return WeightFormat::kQ5_K;
    case DType::kQ6_K:
      return WeightFormat::kQ6_K;
    default:
      return std::nullopt;
  }
}

Result<Matrix> repack_k_blocks(WeightFormat format, int64_t block_bytes, const std::byte* blocks,
                               int64_t rows, int64_t cols) {
  std::shared_ptr<std::byte[]> memory;
  Result<Matrix> out = zeroed_matrix(rows, cols, format, memory);
  if (!out.ok()) return out;
  with_format(format,
              [&]<WeightFormat F>() { repack<F>(blocks, block_bytes, *out, memory.get()); });
  return out;
}

void widen_k_row(const Matrix& from, int64_t row, float* out) {
  with_format(from.format, [&]<WeightFormat F>() { widen_row_of<F>(from, row, out); });
}

}  // namespace chimera
