#include "compute/tensor/packed_tensor.h"

#include <cstring>

#include "base/quote.h"
#include "compute/tensor/k_layout.h"
#include "compute/tensor/memory.h"

namespace chimera {
namespace {

// Bounds of both sides, so that no product of them and the bytes of a block leaves 63 bits.
constexpr int64_t kMostPackedSide = int64_t{1} << 31;

int packed_place(WeightFormat format) {
  return static_cast<int>(format) - static_cast<int>(WeightFormat::kQ8);
}

static_assert(static_cast<int>(DType::kPackedQ6_K) - static_cast<int>(DType::kPackedQ8) ==
                  static_cast<int>(WeightFormat::kQ6_K) - static_cast<int>(WeightFormat::kQ8),
              "one packed type for each packed format, in their order");

/// Numbers in half precision that a block begins with.
int64_t halves_of(WeightFormat format) {
  const bool minima = is_k_format(format) && k_layout(format).minima;
  return kPanelOutputs * (minima ? 2 : 1);
}

/// Whether one of `n` numbers in half precision, a multiple of four, is a NaN or an infinity: four
/// at a time, as a load of a packed module passes all its scales. Adding the exponent's lowest bit
/// to the bare exponent carries into the sign's place exactly when it is all ones.
bool any_non_finite_half(const std::byte* halves, int64_t n) {
  constexpr uint64_t kOnes = 0x0001'0001'0001'0001u;
  uint64_t carries = 0;
  for (int64_t i = 0; i < n; i += 4) {
    uint64_t word;
    std::memcpy(&word, halves + 2 * i, sizeof(word));
    carries |= (word & kOnes * 0x7c00u) + kOnes * 0x0400u;
  }
  return (carries & kOnes * 0x8000u) != 0;
}

}  // namespace

WeightFormat format_of_packed(DType dtype) {
  const int place = static_cast<int>(dtype) - static_cast<int>(DType::kPackedQ8);
  return static_cast<WeightFormat>(static_cast<int>(WeightFormat::kQ8) + place);
}

DType packed_type(WeightFormat format) {
  return static_cast<DType>(static_cast<int>(DType::kPackedQ8) + packed_place(format));
}

std::optional<int64_t> packed_bytes(DType dtype, std::span<const int64_t> shape) {
  if (shape.size() != 2) return std::nullopt;
  for (const int64_t side : shape) {
    if (side < 1 || side > kMostPackedSide) return std::nullopt;
  }
  const WeightFormat format = format_of_packed(dtype);
  if (is_k_format(format) && shape[1] % kSuperInputs != 0) return std::nullopt;
  return weight_bytes(format, shape[0], shape[1]);
}

bool runs_packed(WeightFormat format, Precision p) {
  const std::optional<WeightFormat> asked = packed_format(p);
  if (!asked || !is_packed(format)) return false;
  if (format == WeightFormat::kQ8 || format == WeightFormat::kQ4) return format == *asked;
  return *asked == WeightFormat::kQ8 || format <= WeightFormat::kQ4_K;
}

TensorView packed_tensor(std::string name, const Matrix& m) {
  TensorView t;
  t.name = std::move(name);
  t.dtype = packed_type(m.format);
  t.shape = {m.rows, m.cols};
  t.bytes = {static_cast<const std::byte*>(m.data), m.bytes()};
  t.owner = m.owner;
  t.scale = m.scale;
  return t;
}

Result<Matrix> packed_matrix(const TensorView& t) {
  Matrix m{t.bytes.data(), format_of_packed(t.dtype), t.shape[0], t.shape[1], t.owner, t.scale};
  if (reinterpret_cast<uintptr_t>(t.bytes.data()) % kPackedAlignment == 0) return m;
  const std::shared_ptr<std::byte[]> memory = allocate_weights(m.bytes());
  if (memory == nullptr) return no_memory("tensor " + quote(t.name), m.bytes());
  std::memcpy(memory.get(), t.bytes.data(), m.bytes());
  m.data = memory.get();
  m.owner = memory;
  return m;
}

int64_t first_non_finite_packed(const TensorView& t) {
  const WeightFormat format = format_of_packed(t.dtype);
  const WeightFormatInfo& info = info_of(format);
  const int64_t blocks = blocks_of(format, t.shape[1]);
  const int64_t halves = halves_of(format);
  const std::byte* block = t.bytes.data();
  for (int64_t panel = 0; panel < panels_of(t.shape[0]); ++panel) {
    for (int64_t b = 0; b < blocks; ++b, block += info.block_bytes) {
      if (!any_non_finite_half(block, halves)) continue;
      for (int64_t i = 0; i < halves; ++i) {
        uint16_t half;
        std::memcpy(&half, block + 2 * i, sizeof(half));
        if ((half & 0x7c00u) != 0x7c00u) continue;
        const int64_t row = std::min(panel * kPanelOutputs + i % kPanelOutputs, t.shape[0] - 1);
        return row * t.shape[1] + b * info.block_inputs;
      }
    }
  }
  return -1;
}

}  // namespace chimera
