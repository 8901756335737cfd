// Where the numbers of a K format stand in a block of a panel (weight_format.h).
//
// A block is 256 inputs of 16 outputs. As in GGUF's K types (block_types.h), a weight is
//
//   W = scale * s * (code - offset)          q3_k, q6_k
//   W = scale * s * code - minimum * t       q2_k, q4_k, q5_k
//
// with scale and minimum in half precision per block and output, and integers s, t of 8 bits per
// group of 16 or 32 inputs. (GGUF packs these into 4 or 6 bits; here each has a byte, which costs
// 0.125 bits per weight of q3_k, q4_k and q5_k and half a bit of q2_k.)
//
//   [16] scale  [16] minimum  [groups / 2][16 outputs][2 groups] s  [the same] t
//   then for each 32 inputs planes of [16 outputs][4 inputs] bytes, first those of the low bits of
//   the codes, then those of the high ones; a plane of b bits holds 8 / b groups of four inputs,
//   the first in its lowest bits
//
//            low bits  high bits  inputs per s  t    offset  bits per weight
//   q2_k     2         -          16            yes          3.125
//   q3_k     2         1          16            -    4       3.5625
//   q4_k     4         -          32            yes          4.625
//   q5_k     4         1          32            yes          5.625
//   q6_k     4         2          16            -    32      6.5625
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>

#include "compute/tensor/weight_format.h"

namespace chimera {

inline constexpr int64_t kLeastGroup = 16;

struct KLayout {
  int low_bits;
  int high_bits;
  int64_t group;  // inputs that share s and t
  bool minima;    // whether there are t
  int offset;

  constexpr int64_t groups() const { return kSuperInputs / group; }
  constexpr int64_t scales_at() const { return kPanelScaleBytes * (minima ? 2 : 1); }
  constexpr int64_t minima_at() const { return scales_at() + kPanelOutputs * groups(); }
  constexpr int64_t codes_at() const {
    return scales_at() + kPanelOutputs * groups() * (minima ? 2 : 1);
  }
  /// Of 32 inputs.
  constexpr int64_t code_bytes() const {
    return kPanelOutputs * kBlockInputs * (low_bits + high_bits) / 8;
  }
  constexpr int64_t bytes() const {
    return codes_at() + kSuperInputs / kBlockInputs * code_bytes();
  }
  /// The largest code.
  constexpr int most() const { return (1 << (low_bits + high_bits)) - 1; }
};

/// Of a K format.
constexpr KLayout k_layout(WeightFormat format) {
  switch (format) {
    case WeightFormat::kQ2_K:
      return {2, 0, 16, true, 0};
    case WeightFormat::kQ3_K:
      return {2, 1, 16, false, 4};
    case WeightFormat::kQ4_K:
      return {4, 0, 32, true, 0};
    case WeightFormat::kQ5_K:
      return {4, 1, 32, true, 0};
    default:
      return {4, 2, 16, false, 32};
  }
}
constexpr bool is_k_format(WeightFormat format) { return format >= WeightFormat::kQ2_K; }

static_assert(k_layout(WeightFormat::kQ2_K).bytes() == info_of(WeightFormat::kQ2_K).block_bytes);
static_assert(k_layout(WeightFormat::kQ3_K).bytes() == info_of(WeightFormat::kQ3_K).block_bytes);
static_assert(k_layout(WeightFormat::kQ4_K).bytes() == info_of(WeightFormat::kQ4_K).block_bytes);
static_assert(k_layout(WeightFormat::kQ5_K).bytes() == info_of(WeightFormat::kQ5_K).block_bytes);
static_assert(k_layout(WeightFormat::kQ6_K).bytes() == info_of(WeightFormat::kQ6_K).block_bytes);

/// Bits of the four inputs 4 * quad … of 32, in the byte of the first of them and of output 0.
struct KPlace {
  int64_t byte;  // from the codes of these 32 inputs on
  int shift;
};
inline constexpr int64_t kPlaneBytes = kPanelOutputs * 4;

constexpr KPlace k_low_place(const KLayout& layout, int quad) {
  const int quads = 8 / layout.low_bits;
  return {quad / quads * kPlaneBytes, quad % quads * layout.low_bits};
}
/// REQUIRES: there are high bits.
constexpr KPlace k_high_place(const KLayout& layout, int quad) {
  const int quads = 8 / layout.high_bits;
  return {(layout.low_bits + quad / quads) * kPlaneBytes, quad % quads * layout.high_bits};
}
/// Of the s (or t) of a group, from the first on.
constexpr int64_t k_scale_place(int64_t group, int64_t output) {
  return (group / 2 * kPanelOutputs + output) * 2 + group % 2;
}

}  // namespace chimera
