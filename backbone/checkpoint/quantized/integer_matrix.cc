#include "backbone/checkpoint/quantized/integer_matrix.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/quote.h"
#include "compute/tensor/tensor_source.h"

namespace chimera {
namespace {

// Rows that are decoded together: layouts that go along the outputs have so many in a cache line.
constexpr int64_t kTileRows = 128;
constexpr int64_t kBlock = 32;

DType dtype_of(const IntegerMatrix& m) {
  const bool blocks = !m.group_of && m.cols % kBlock == 0 && m.group % kBlock == 0;
  if (!blocks || (!m.symmetric && !m.narrow_scales)) return DType::kF32;
  if (m.symmetric) return m.bits <= 4 ? DType::kInt4 : DType::kInt8;
  return m.bits <= 4 ? DType::kInt4Affine : DType::kInt8Affine;
}

void put(float value, std::byte* to) { std::memcpy(to, &value, sizeof(value)); }

/// Codes of 4 bits as in Q4_0: elements 0 to 15 in the low halves, 16 to 31 in the high ones.
void put_nibbles(const uint8_t* codes, int add, std::byte* to) {
  for (int64_t i = 0; i < kBlock / 2; ++i) {
    const int low = codes[i] + add, high = codes[i + kBlock / 2] + add;
    to[i] = std::byte{static_cast<uint8_t>(low | high << 4)};
  }
}

class IntegerSource final : public TensorSource {
 public:
  explicit IntegerSource(IntegerMatrix matrix) : m_(std::move(matrix)), dtype_(dtype_of(m_)) {}

  DType dtype() const { return dtype_; }
  std::span<const TensorView> parts() const override { return m_.parts; }

  Status make(std::byte* to) const override {
    CHIMERA_RETURN_IF_ERROR(check());
    const auto row_bytes = static_cast<size_t>(*dense_bytes(dtype_, std::array{m_.cols}));
    std::vector<uint8_t> codes(static_cast<size_t>(std::min(kTileRows, m_.rows) * m_.cols));
    for (int64_t first = 0; first < m_.rows; first += kTileRows) {
      const int64_t count = std::min(kTileRows, m_.rows - first);
      m_.codes(first, count, codes.data());
      for (int64_t i = 0; i < count; ++i, to += row_bytes) {
        const uint8_t* row = codes.data() + i * m_.cols;
        if (dtype_ == DType::kF32) {
          make_wide(first + i, row, to);
        } else {
          make_blocks(first + i, row, to);
        }
      }
    }
    return {};
  }

 private:
  Status check() const {
    if (m_.group_of) {
      for (int64_t k = 0; k < m_.cols; ++k) {
        const auto group = static_cast<int32_t>(word_at(*m_.group_of, k));
        if (group < 0 || group >= m_.groups())
          return {Code::kDataCorrupt,
                  fmt::format("tensor {}: found group {} for input {} (expected 0 to {})",
                              quote(m_.group_of->name), group, k, m_.groups() - 1),
                  "The weights are broken; download them again."};
      }
    }
    if (!m_.symmetric) return {};
    const int middle = 1 << (m_.bits - 1);
    for (int64_t row = 0; row < m_.rows; ++row) {
      for (int64_t g = 0; g < m_.groups(); ++g) {
        const int zero = m_.zero(row, g);
        if (zero == middle) continue;
        return {Code::kDataCorrupt,
                fmt::format("tensor {}: found the zero point {} for output {} (expected {}: the "
                            "configuration says that the weights are symmetric)",
                            quote(m_.name), zero, row, middle),
                "Get the config.json that belongs to these weights."};
      }
    }
    return {};
  }

  void make_wide(int64_t row, const uint8_t* codes, std::byte* to) const {
    struct Group {
      float scale, offset;
      int zero;
    };
    std::vector<Group> groups(static_cast<size_t>(m_.groups()));
    for (int64_t g = 0; g < m_.groups(); ++g)
      groups[static_cast<size_t>(g)] = {m_.scale(row, g), m_.zero ? 0.0f : m_.offset(row, g),
                                        m_.zero ? m_.zero(row, g) : 0};
    for (int64_t k = 0; k < m_.cols; ++k, to += sizeof(float)) {
      const Group& g =
          groups[m_.group_of ? word_at(*m_.group_of, k) : static_cast<size_t>(k / m_.group)];
      const float product = static_cast<float>(codes[k] - g.zero) * g.scale;
      put(m_.zero ? product : product + g.offset, to);
    }
  }

  void make_blocks(int64_t row, const uint8_t* codes, std::byte* to) const {
    const int64_t bytes = unit_of(dtype_).bytes;
    for (int64_t k = 0; k < m_.cols; k += kBlock, to += bytes) {
      const int64_t g = k / m_.group;
      const float scale = m_.scale(row, g);
      put(scale, to);
      std::byte* integers = to + 4;
      if (!m_.symmetric) {
        put(m_.zero ? static_cast<float>(-m_.zero(row, g)) * scale : m_.offset(row, g), to + 4);
        integers += 4;
      }
      if (dtype_ == DType::kInt4 || dtype_ == DType::kInt4Affine) {
        // The middle of fewer bits becomes that of four.
        put_nibbles(codes + k, m_.symmetric ? 8 - (1 << (m_.bits - 1)) : 0, integers);
        continue;
      }
      const int middle = m_.symmetric ? 1 << (m_.bits - 1) : 0;
      for (int64_t i = 0; i < kBlock; ++i)
        integers[i] = std::byte{static_cast<uint8_t>(codes[k + i] - middle)};
    }
  }

  IntegerMatrix m_;
  DType dtype_;
};

}  // namespace

TensorView integer_tensor(IntegerMatrix matrix) {
  std::string name = matrix.name;
  std::vector<int64_t> shape{matrix.rows, matrix.cols};
  auto source = std::make_shared<IntegerSource>(std::move(matrix));
  const DType dtype = source->dtype();
  return unmade_tensor(std::move(name), dtype, std::move(shape), std::move(source));
}

float number_at(const TensorView& t, int64_t i) {
  if (t.dtype == DType::kF32) {
    float value;
    std::memcpy(&value, t.bytes.data() + i * 4, sizeof(value));
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, t.bytes.data() + i * 2, sizeof(bits));
  return t.dtype == DType::kF16 ? f16_to_f32(bits) : bf16_to_f32(bits);
}

uint32_t word_at(const TensorView& t, int64_t i) {
  uint32_t word;
  std::memcpy(&word, t.bytes.data() + i * 4, sizeof(word));
  return word;
}

}  // namespace chimera
