// Matrices in packed formats (weight_format.h), and where an integer stands in a block of q8 and
// q4. Private to this folder.
//
// Thread safety: pure functions.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/status.h"
#include "compute/tensor/tensor.h"
#include "compute/tensor/weight_format.h"

namespace chimera {

/// A matrix of zeros in a packed format, in `memory` of its own. resource_exhausted: no memory.
Result<Matrix> zeroed_matrix(int64_t rows, int64_t cols, WeightFormat format,
                             std::shared_ptr<std::byte[]>& memory);

/// The integers of one output of a block; of table formats their places, less 8.
using PackedCodes = std::array<int8_t, kBlockInputs>;

/// Where input `k` of output `n` stands among the integers of a block.
constexpr size_t q8_place(size_t n, size_t k) { return k / 4 * 64 + n * 4 + k % 4; }
constexpr size_t q4_place(size_t n, size_t k) { return k / 8 * 64 + n * 4 + k % 4; }
constexpr bool q4_high(size_t k) { return k / 4 % 2 == 1; }

/// Puts the integers of output `n` into a block whose other bits are zero.
inline void store_packed_codes(WeightFormat format, const PackedCodes& codes, size_t n,
                               std::byte* integers) {
  for (size_t k = 0; k < codes.size(); ++k) {
    if (format == WeightFormat::kQ8) {
      integers[q8_place(n, k)] = std::byte{static_cast<uint8_t>(codes[k])};
      continue;
    }
    const auto nibble = static_cast<uint8_t>(codes[k] + 8);
    integers[q4_place(n, k)] |= std::byte{q4_high(k) ? static_cast<uint8_t>(nibble << 4) : nibble};
  }
}

}  // namespace chimera
