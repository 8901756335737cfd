// Weights in blocks, as GGUF files store them: 32 or 256 elements of a row with their scales.
//
// Element i of a block, with d and m in half precision and q its code:
//   Q4_0, Q5_0, Q8_0    d * q, q in [-8, 7], [-16, 15], [-128, 127]
//   Q4_1, Q5_1          d * q + m, q in [0, 15], [0, 31]
//   Q2_K, Q4_K, Q5_K    d * s * q - m * t, with small integers s and t per 16 or 32 elements
//   Q3_K, Q6_K          d * s * q, with small integers s per 16 elements
//   IQ4_NL              d * table[q]
//   MXFP4               2^(e - 127) * q, q of E2M1 (OCP Microscaling Formats 1.0)
//
// The F32 value is the exact one rounded once: products of these short numbers fit 24 bits, so only
// the last operation rounds, and it does not matter whether it is fused.
//
// Thread safety: constants and pure functions.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/status.h"
#include "compute/tensor/tensor.h"

namespace chimera {

struct BlockType {
  DType dtype;
  std::string_view name;
  uint32_t gguf_type;  // its number in tensor infos
  int64_t elements;
  int64_t bytes;
  int half_count;             // scales in half precision,
  std::array<int, 2> halves;  // and where in the block they stand
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
