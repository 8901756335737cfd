#include "compute/tensor/repack.h"

#include <algorithm>
#include <cstring>

#include "compute/tensor/memory.h"
#include "compute/tensor/packed_layout.h"

namespace chimera {
namespace {

constexpr size_t kScaleBytes = 2;

/// The integers of a block of Q8_0 or Q4_0, which follow its scale.
PackedCodes codes_of(DType type, const std::byte* block) {
  PackedCodes codes;
  const std::byte* integers = block + kScaleBytes;
  if (type == DType::kQ8_0) {
    std::memcpy(codes.data(), integers, codes.size());
    return codes;
  }
  constexpr size_t kHalf = kBlockInputs / 2;
  for (size_t i = 0; i < kHalf; ++i) {
    const auto byte = std::to_integer<int>(integers[i]);
    codes[i] = static_cast<int8_t>((byte & 15) - 8);
    codes[i + kHalf] = static_cast<int8_t>((byte >> 4) - 8);
  }
  return codes;
}

}  // namespace

bool repacks_exactly(DType from, WeightFormat to) {
  return (from == DType::kQ8_0 && to == WeightFormat::kQ8) ||
         (from == DType::kQ4_0 && to == WeightFormat::kQ4);
}

Result<Matrix> repack_blocks(DType from, const std::byte* blocks, int64_t rows, int64_t cols,
                             WeightFormat to) {
  Matrix out;
  out.format = to;
  out.rows = rows;
  out.cols = cols;
  const std::shared_ptr<std::byte[]> memory = allocate_weights(out.bytes());
  if (memory == nullptr) {
    return Status(Code::kResourceExhausted,
                  "no memory for a weight of " + std::to_string(out.bytes()) + " bytes",
                  "Free memory and retry.");
  }
  std::fill_n(memory.get(), out.bytes(), std::byte{0});
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
  out.data = memory.get();
  out.owner = memory;
  return out;
}

}  // namespace chimera
