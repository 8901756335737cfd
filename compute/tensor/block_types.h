// Weights in blocks: 16, 32 or 256 elements of a row with their scales.
//
// As GGUF files store them.
// Element i of a block, with d and m in half precision and q its code:
//   Q4_0, Q5_0, Q8_0    d * q, q in [-8, 7], [-16, 15], [-128, 127]
//   Q4_1, Q5_1          d * q + m, q in [0, 15], [0, 31]
//   Q2_K, Q4_K, Q5_K    d * s * q - m * t, with small integers s and t per 16 or 32 elements
//   Q3_K, Q6_K          d * s * q, with small integers s per 16 elements
//   IQ4_NL              d * table[q]
//   MXFP4               2^(e - 127) * q, q of E2M1 (OCP Microscaling Formats 1.0)
//
// Into these go the integers of quantised Hugging Face checkpoints (backbone/checkpoint/quantized),
// whose scales are F16, BF16 or F32 and stand once per group of any size; s and m are F32, so that
// every value is the one that was stored. 4-bit codes lie as in Q4_0.
//   INT4, INT8                 s * q, q in [-8, 7], [-128, 127]     s, codes
//   INT4_AFFINE, INT8_AFFINE   s * q + m, q in [0, 15], [0, 255]    s, m, codes
//   NVFP4                      s * q, q of E2M1, 16 elements        s, codes (pairs, low half
//   first)
//
// The F32 value is the exact one rounded once: products of these short numbers fit 24 bits, so only
// the last operation rounds, and it does not matter whether it is fused. (For the affine types
// whoever fills them sees to it: s is a number of 16 bits there.)
//
// Thread safety: constants and pure functions.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "base/status.h"
#include "compute/tensor/tensor.h"

namespace chimera {

struct BlockType {
  DType dtype;
  std::string_view name;
  std::optional<uint32_t> gguf_type;  // its number in tensor infos
  int64_t elements;
  int64_t bytes;
  int scale_count;            // scales in half precision, or in F32 when there is no gguf_type,
  std::array<int, 2> scales;  // and where in the block they stand
  void (*widen)(const uint8_t* block, float* out);
};

std::span<const BlockType> block_types();
/// Null for a dtype that is not of this kind.
const BlockType* block_type(DType dtype);

/// `elements` (whole blocks) from `from` on.
void widen_blocks(DType dtype, const std::byte* from, int64_t elements, float* out);
/// Index of the first block that holds a NaN or an infinity; -1: none.
int64_t first_non_finite_block(DType dtype, std::span<const std::byte> blocks);

}  // namespace chimera
