// The formats in which the kernels take weights, and what they cost.
//
//   f32, bf16, f16   row-major [outputs, inputs], as Hugging Face stores them. Products widen, and
//                    exactly: bf16 and f16 give the bits of the same numbers in f32
//   q8, q4           integers of 8 or 4 bits in blocks of 32 inputs with one scale each, packed in
//                    panels of 16 outputs (see below)
//   iq4_nl, mxfp4   as q4, with integers that a table of 16 says; and
//   q2_k … q6_k     the K types of GGUF (k_layout.h): what is stored so, number for number. Nothing
//                   is ever rounded to these
//
// Packed layout. Outputs are cut into panels of 16 (the last is padded with zeros), inputs into
// blocks of 32 (likewise); the blocks of a panel follow one another, and panel follows panel. A
// block holds 16 scales in half precision, one per output, and its integers, four inputs of an
// output side by side, the 16 outputs after one another: a group of 64 bytes is two AVX2 registers,
// one AVX-512 register of VNNI lanes and one row of an AMX tile.
//
//   q8   [16] scale  [8 groups of 4 inputs][16 outputs][4 inputs] int8 (-128: of Q8_0)
//   q4   [16] scale  [4 pairs of groups][16 outputs][4 inputs] bytes: the integer + 8 of the first
//                    group in the low four bits, of the second in the high ones
//
//   iq4_nl, mxfp4   as q4, the place of the integer in kIq4NlIntegers or kMxfp4Integers
//
//   W[n, k] = integer * scale * Matrix::scale
//
// Matrix::scale is a power of two for the whole matrix that brings the block scales into the middle
// of what half precision holds, so that they keep 11 bits whatever the size of the weights.
//
// Thread safety: pure functions.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

namespace chimera {

enum class WeightFormat : uint8_t {
  kF32,
  kBF16,
  kF16,
  kQ8,
  kQ4,
  kIQ4_NL,
  kMXFP4,
  kQ2_K,
  kQ3_K,
  kQ4_K,
  kQ5_K,
  kQ6_K
};

/// What the four bits of these formats mean. E2M1 twice, so that all are integers.
inline constexpr std::array<int8_t, 16> kIq4NlIntegers{-127, -104, -83, -65, -49, -35, -22, -10,
                                                       1,    13,   25,  38,  53,  69,  89,  113};
inline constexpr std::array<int8_t, 16> kMxfp4Integers{0, 1,  2,  3,  4,  6,  8,  12,
                                                       0, -1, -2, -3, -4, -6, -8, -12};
constexpr bool is_table_format(WeightFormat format) {
  return format == WeightFormat::kIQ4_NL || format == WeightFormat::kMXFP4;
}
/// Of a table format.
constexpr const std::array<int8_t, 16>& integers_of(WeightFormat format) {
  return format == WeightFormat::kIQ4_NL ? kIq4NlIntegers : kMxfp4Integers;
}

inline constexpr int64_t kPanelOutputs = 16;
inline constexpr int64_t kBlockInputs = 32;
inline constexpr int64_t kSuperInputs = 256;  // of the K formats
inline constexpr int64_t kPanelScaleBytes = kPanelOutputs * 2;

struct WeightFormatInfo {
  WeightFormat format;
  std::string_view name;
  int64_t element_bytes;  // row-major formats; 0: packed
  int64_t block_bytes;    // packed formats: of one block of one panel, scales included
  int64_t block_inputs;   // packed formats: inputs of a block
};

inline constexpr std::array kWeightFormats{
    WeightFormatInfo{WeightFormat::kF32, "f32", 4, 0, 0},
    WeightFormatInfo{WeightFormat::kBF16, "bf16", 2, 0, 0},
    WeightFormatInfo{WeightFormat::kF16, "f16", 2, 0, 0},
    WeightFormatInfo{WeightFormat::kQ8, "q8", 0, kPanelScaleBytes + kPanelOutputs* kBlockInputs,
                     kBlockInputs},
    WeightFormatInfo{WeightFormat::kQ4, "q4", 0, kPanelScaleBytes + kPanelOutputs* kBlockInputs / 2,
                     kBlockInputs},
    WeightFormatInfo{WeightFormat::kIQ4_NL, "iq4_nl", 0,
                     kPanelScaleBytes + kPanelOutputs* kBlockInputs / 2, kBlockInputs},
    WeightFormatInfo{WeightFormat::kMXFP4, "mxfp4", 0,
                     kPanelScaleBytes + kPanelOutputs* kBlockInputs / 2, kBlockInputs},
    // Bytes: k_layout.h.
    WeightFormatInfo{WeightFormat::kQ2_K, "q2_k", 0, 1600, kSuperInputs},
    WeightFormatInfo{WeightFormat::kQ3_K, "q3_k", 0, 1824, kSuperInputs},
    WeightFormatInfo{WeightFormat::kQ4_K, "q4_k", 0, 2368, kSuperInputs},
    WeightFormatInfo{WeightFormat::kQ5_K, "q5_k", 0, 2880, kSuperInputs},
    WeightFormatInfo{WeightFormat::kQ6_K, "q6_k", 0, 3360, kSuperInputs},
};

constexpr const WeightFormatInfo& info_of(WeightFormat format) {
  return kWeightFormats[static_cast<size_t>(format)];
}
constexpr bool is_packed(WeightFormat format) { return info_of(format).block_bytes > 0; }

constexpr int64_t panels_of(int64_t outputs) {
  return (outputs + kPanelOutputs - 1) / kPanelOutputs;
}
constexpr int64_t blocks_of(int64_t inputs) { return (inputs + kBlockInputs - 1) / kBlockInputs; }
/// Of a packed format. K formats have whole blocks only.
constexpr int64_t blocks_of(WeightFormat format, int64_t inputs) {
  const int64_t of_block = info_of(format).block_inputs;
  return (inputs + of_block - 1) / of_block;
}

/// Bytes of a matrix.
constexpr int64_t weight_bytes(WeightFormat format, int64_t outputs, int64_t inputs) {
  const WeightFormatInfo& info = info_of(format);
  return is_packed(format) ? panels_of(outputs) * blocks_of(format, inputs) * info.block_bytes
                           : outputs * inputs * info.element_bytes;
}

}  // namespace chimera
