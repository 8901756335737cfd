#include "compute/tensor/block_quant.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "base/quote.h"
#include "compute/tensor/block_types.h"
#include "compute/tensor/convert.h"
#include "compute/tensor/memory.h"
#include "compute/tensor/pack.h"

namespace chimera {
namespace {

// 6 * 2^125 is the largest MXFP4 value that F32 holds; scale bytes above may overflow.
constexpr uint8_t kMostMxfp4Scale = 252;

float make_f8(unsigned code) {
  const int exponent = static_cast<int>((code >> 3) & 15u);
  const float mantissa = static_cast<float>(code & 7u) / 8.0f;
  if ((code & 0x7fu) == 0x7fu) return std::numeric_limits<float>::quiet_NaN();
  const float magnitude =
      exponent == 0 ? std::ldexp(mantissa, -6) : std::ldexp(1.0f + mantissa, exponent - 7);
  return (code & 0x80u) != 0 ? -magnitude : magnitude;
}

const std::array<float, 256>& f8_table() {
  static const std::array<float, 256> table = [] {
    std::array<float, 256> t{};
    for (unsigned code = 0; code < 256; ++code) t[code] = make_f8(code);
    return t;
  }();
  return table;
}

struct Pair {
  float low, high;
};

/// The two elements of every byte: one load gives both.
const std::array<Pair, 256>& fp4_table() {
  static const std::array<Pair, 256> table = [] {
    constexpr std::array kValues{0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f};
    const auto value = [&](unsigned code) {
      const float magnitude = kValues[code & 7u];
      return (code & 8u) != 0 ? -magnitude : magnitude;
    };
    std::array<Pair, 256> t{};
    for (unsigned code = 0; code < 256; ++code) t[code] = {value(code & 15u), value(code >> 4)};
    return t;
  }();
  return table;
}

/// Scale `i` of numbers of this dtype, of any alignment.
float load_scale(DType dtype, const std::byte* scales, int64_t i) {
  if (dtype == DType::kF32) {
    float value;
    std::memcpy(&value, scales + i * 4, sizeof(value));
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, scales + i * 2, sizeof(bits));
  return dtype == DType::kF16 ? f16_to_f32(bits) : bf16_to_f32(bits);
}

void widen_fp8_row(const QuantMatrix& m, int64_t row, float* out) {
  const std::array<float, 256>& table = f8_table();
  const auto* codes = reinterpret_cast<const uint8_t*>(m.codes + row * m.code_step);
  const std::byte* scales = m.scales + row / m.block.rows * m.scale_step;
  for (int64_t begin = 0; begin < m.cols; begin += m.block.cols) {
    const float scale = load_scale(m.scale_dtype, scales, begin / m.block.cols);
    const int64_t end = std::min(m.cols, begin + m.block.cols);
    for (int64_t i = begin; i < end; ++i) out[i] = table[codes[i]] * scale;
  }
}

void widen_mxfp4_row(const QuantMatrix& m, int64_t row, float* out) {
  const std::array<Pair, 256>& table = fp4_table();
  const auto* codes = reinterpret_cast<const uint8_t*>(m.codes + row * m.code_step);
  const auto* scales = reinterpret_cast<const uint8_t*>(m.scales + row * m.scale_step);
  for (int64_t block = 0; block < m.cols / kMxfp4Block; ++block) {
    const float scale = std::ldexp(1.0f, static_cast<int>(scales[block]) - 127);
    for (int64_t i = 0; i < kMxfp4BlockBytes; ++i) {
      const Pair pair = table[codes[block * kMxfp4BlockBytes + i]];
      out[block * kMxfp4Block + 2 * i] = pair.low * scale;
      out[block * kMxfp4Block + 2 * i + 1] = pair.high * scale;
    }
  }
}

Status not_finite(std::string_view name, int64_t row, const char* what) {
  return {Code::kDataCorrupt,
          "tensor " + quote(name) + ": found " + what + " in row " + std::to_string(row) +
              " (expected finite numbers)",
          "The weights are broken; export them again."};
}

}  // namespace

float f8e4m3_to_f32(uint8_t code) { return f8_table()[code]; }

void QuantMatrix::widen(int64_t begin, int64_t end, float* out) const {
  for (int64_t row = begin; row < end; ++row, out += cols) {
    switch (format) {
      case Format::kFp8:
        widen_fp8_row(*this, row, out);
        break;
      case Format::kMxfp4:
        widen_mxfp4_row(*this, row, out);
        break;
      case Format::kBlocks:
        widen_blocks(dtype, codes + row * code_step, cols, out);
        break;
    }
  }
}

uint64_t QuantMatrix::bytes() const {
  if (format == Format::kBlocks) return static_cast<uint64_t>(rows * code_step);
  const int64_t size = format == Format::kFp8
                           ? rows * cols + block.scale_rows(rows) * scale_step
                           : rows * (cols / kMxfp4Block) * (kMxfp4BlockBytes + 1);
  return static_cast<uint64_t>(size);
}

namespace {

/// Whether one of n codes is NaN, 0x7f or 0xff. Whole models pass through here at every start, so
/// eight are looked at together: adding 1 to the low seven bits carries into the eighth exactly
/// when all are ones.
bool any_f8_nan(const std::byte* codes, int64_t n) {
  constexpr uint64_t kOnes = 0x0101'0101'0101'0101u;
  uint64_t carries = 0;
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    uint64_t word;
    std::memcpy(&word, codes + i, sizeof(word));
    carries |= (word & (kOnes * 0x7f)) + kOnes;
  }
  for (; i < n; ++i) carries |= (std::to_integer<uint64_t>(codes[i]) & 0x7f) + 1;
  return (carries & (kOnes * 0x80)) != 0;
}

}  // namespace

Status QuantMatrix::check_finite(std::string_view name) const {
  if (format == Format::kBlocks) {
    for (int64_t row = 0; row < rows; ++row) {
      const std::span<const std::byte> blocks(codes + row * code_step,
                                              static_cast<size_t>(code_step));
      if (first_non_finite_block(dtype, blocks) >= 0)
        return not_finite(name, row, "a scale of NaN or infinity");
    }
    return {};
  }
  for (int64_t row = 0; row < rows; ++row) {
    if (format == Format::kMxfp4) {
      const auto* s = reinterpret_cast<const uint8_t*>(scales + row * scale_step);
      uint8_t most = 0;
      for (int64_t i = 0; i < cols / kMxfp4Block; ++i) most = std::max(most, s[i]);
      if (most > kMostMxfp4Scale) return not_finite(name, row, "a scale of NaN or infinity");
      continue;
    }
    if (any_f8_nan(codes + row * code_step, cols)) return not_finite(name, row, "NaN");
  }
  if (format == Format::kMxfp4) return {};
  for (int64_t r = 0; r < block.scale_rows(rows); ++r) {
    for (int64_t c = 0; c < block.scale_cols(cols); ++c) {
      if (!std::isfinite(load_scale(scale_dtype, scales + r * scale_step, c))) {
        return not_finite(name, r * block.rows, "a scale of NaN or infinity");
      }
    }
  }
  return {};
}

bool is_scale_dtype(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kBF16 || dtype == DType::kF16;
}

Result<QuantMatrix> fp8_matrix(const TensorView& weight, const TensorView& scale,
                               BlockShape block) {
  if (weight.dtype != DType::kF8E4M3 || weight.shape.size() != 2) {
    return Status(Code::kDataCorrupt,
                  "tensor " + quote(weight.name) + " is " + std::string(dtype_name(weight.dtype)) +
                      " " + shape_string(weight.shape) + ", expected F8_E4M3 of two dimensions");
  }
  const int64_t rows = weight.shape[0];
  const int64_t cols = weight.shape[1];
  const std::vector<int64_t> want{block.scale_rows(rows), block.scale_cols(cols)};
  if (!is_scale_dtype(scale.dtype) || scale.shape != want) {
    return Status(Code::kDataCorrupt,
                  "tensor " + quote(scale.name) + " is " + std::string(dtype_name(scale.dtype)) +
                      " " + shape_string(scale.shape) + ", expected F32, BF16 or F16 " +
                      shape_string(want) + ", one scale per block of " +
                      std::to_string(block.rows) + " x " + std::to_string(block.cols));
  }
  QuantMatrix m;
  m.rows = rows;
  m.cols = cols;
  m.codes = weight.bytes.data();
  m.code_step = cols;
  m.scales = scale.bytes.data();
  m.scale_step = want[1] * unit_of(scale.dtype).bytes;
  m.scale_dtype = scale.dtype;
  m.block = block;
  m.owner = weight.owner;
  m.scale_owner = scale.owner;
  return m;
}

QuantMatrix block_matrix(const TensorView& t) {
  QuantMatrix m;
  m.format = QuantMatrix::Format::kBlocks;
  m.dtype = t.dtype;
  m.rows = t.shape[0];
  m.cols = t.shape[1];
  m.codes = t.bytes.data();
  m.code_step = m.cols / unit_of(t.dtype).elements * unit_of(t.dtype).bytes;
  m.owner = t.owner;
  return m;
}

Result<Matrix> widen_matrix(const QuantMatrix& matrix, Precision p) {
  if (const auto format = packed_format(p)) {
    Result<Matrix> wide = widen_matrix(matrix, Precision::kF32);
    return wide.ok() ? pack_matrix(*wide, *format) : wide;
  }
  Matrix out;
  out.format = kept_format(DType::kF32, p);
  out.rows = matrix.rows;
  out.cols = matrix.cols;
  const std::shared_ptr<std::byte[]> memory = allocate_weights(out.bytes());
  if (memory == nullptr) return no_memory("a weight", out.bytes());
  out.owner = memory;
  out.data = memory.get();
  switch (p) {
    case Precision::kF32:
      matrix.widen(0, out.rows, reinterpret_cast<float*>(memory.get()));
      break;
    case Precision::kBF16: {
      std::vector<float> row(static_cast<size_t>(out.cols));
      for (int64_t r = 0; r < out.rows; ++r) {
        matrix.widen(r, r + 1, row.data());
        auto* to = reinterpret_cast<uint16_t*>(memory.get()) + r * out.cols;
        for (int64_t i = 0; i < out.cols; ++i) to[i] = f32_to_bf16(row[static_cast<size_t>(i)]);
      }
      break;
    }
    case Precision::kQ8:
    case Precision::kQ4:
      break;  // packed above
  }
  return out;
}

}  // namespace chimera
