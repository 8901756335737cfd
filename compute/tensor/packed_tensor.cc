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
  if (memory == nullptr) {
    return Status(
        Code::kResourceExhausted,
        "tensor " + quote(t.name) + ": no memory for " + std::to_string(m.bytes()) + " bytes",
        "Free memory and retry.");
  }
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
