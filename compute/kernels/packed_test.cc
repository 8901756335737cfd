// Products with packed weights: every instruction set against the scalar one bit for bit, the
// scalar one against double precision within a bound derived from the operands, rows against rows
// alone.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "compute/kernels/kernels.h"
#include "compute/kernels/testing.h"
#include "compute/tensor/block_types.h"
#include "compute/tensor/convert.h"
#include "compute/tensor/k_layout.h"
#include "compute/tensor/memory.h"
#include "compute/tensor/pack.h"

namespace chimera {
namespace {

constexpr WeightFormat kPacked[] = {
    WeightFormat::kIQ4_NL, WeightFormat::kMXFP4, WeightFormat::kQ8,
    WeightFormat::kQ4,     WeightFormat::kQ2_K,  WeightFormat::kQ3_K,
    WeightFormat::kQ4_K,   WeightFormat::kQ5_K,  WeightFormat::kQ6_K};
constexpr DType kKTypes[] = {DType::kQ2_K, DType::kQ3_K, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K};

/// What is stored in a format that nothing is rounded to.
DType stored_as(WeightFormat format) {
  if (format == WeightFormat::kIQ4_NL) return DType::kIQ4_NL;
  if (format == WeightFormat::kMXFP4) return DType::kMXFP4;
  return kKTypes[static_cast<size_t>(format) - static_cast<size_t>(WeightFormat::kQ2_K)];
}
bool is_rounded_to(WeightFormat format) {
  return format == WeightFormat::kQ8 || format == WeightFormat::kQ4;
}
constexpr double kEps = std::numeric_limits<float>::epsilon();

std::vector<Isa> isas() {
  std::vector<Isa> all = vector_isas();
  all.insert(all.begin(), Isa::kScalar);
  return all;
}

class PackedTest : public RandomOperands {
 protected:
  /// Inputs of a row: rows of K formats are whole blocks.
  static std::vector<int64_t> widths(WeightFormat format) {
    if (is_k_format(format)) return {256, 768};
    if (is_table_format(format)) return {32, 96, 256};
    return {1, 31, 32, 33, 96, 100, 256};
  }

  /// Random codes under scales of the size of weights.
  Matrix repacked(int64_t rows, int64_t cols, WeightFormat format) {
    const DType dtype = stored_as(format);
    const BlockType& type = *block_type(dtype);
    std::byte* to = nullptr;
    stored_ = make_tensor("w", dtype, {rows, cols}, &to);
    for (size_t i = 0; i < stored_.bytes.size(); ++i) to[i] = static_cast<std::byte>(random_());
    const std::vector<float> scales = normal(static_cast<int64_t>(stored_.bytes.size()), 0x1p-9f);
    for (size_t at = 0; at < stored_.bytes.size(); at += static_cast<size_t>(type.bytes)) {
      for (int h = 0; h < type.scale_count; ++h) {
        const uint16_t half = f32_to_f16(scales[at + static_cast<size_t>(h)]);
        std::memcpy(to + at + type.scales[static_cast<size_t>(h)], &half, sizeof(half));
      }
      if (dtype == DType::kMXFP4) to[at] = static_cast<std::byte>(between(110, 130));
    }
    auto out = to_matrix(stored_, rows, cols, Precision::kQ8);
    EXPECT_TRUE(out.ok() && out->format == format);
    return *out;
  }

  Matrix packed(int64_t rows, int64_t cols, WeightFormat format) {
    if (!is_rounded_to(format)) return repacked(rows, cols, format);
    const std::vector<float> w = normal(rows * cols, 0.02f);
    auto out = pack_matrix({w.data(), WeightFormat::kF32, rows, cols, nullptr}, format);
    EXPECT_TRUE(out.ok());
    return *out;
  }

  /// No minimum of block `b` of row `n` of what repacked made last is larger; zero without minima.
  double largest_minimum(int64_t n, int64_t b) const {
    const BlockType* type = stored_.bytes.empty() ? nullptr : block_type(stored_.dtype);
    if (type == nullptr || type->scale_count < 2) return 0.0;
    uint16_t half;
    const int64_t at = (n * stored_.shape[1] / type->elements + b) * type->bytes + type->scales[1];
    std::memcpy(&half, stored_.bytes.data() + at, sizeof(half));
    return 63.0 * std::fabs(f16_to_f32(half));
  }

  TensorView stored_;  // what repacked made last
};

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

TEST_F(PackedTest, BitwiseEqualOnEveryInstructionSet) {
  for (const WeightFormat format : kPacked)
    for (const int64_t m : {1, 2, 3, 4, 5, 7, 9, 33})
      for (const int64_t n : {1, 15, 16, 17, 40, 64, 100})
        for (const int64_t k : widths(format)) {
          const Matrix w = packed(n, k, format);
          const int64_t ldx = k + between(0, 5);
          const int64_t ldy = n + between(0, 5);
          const std::vector<float> x = normal(m * ldx);
          const int64_t n0 = between(0, (n - 1) / kPanelOutputs) * kPanelOutputs;
          const int64_t n1 =
              between(0, 1) == 0 ? n : std::min(n, n0 + kPanelOutputs * between(1, 3));
          const std::vector<float> untouched(static_cast<size_t>(m * ldy), -7.0f);
          std::vector<float> expected = untouched;
          kernels_for(Isa::kScalar).matmul(x.data(), m, ldx, w, n0, n1, expected.data(), ldy);
          for (const Isa isa : isas()) {
            std::vector<float> y = untouched;
            kernels_for(isa).matmul(x.data(), m, ldx, w, n0, n1, y.data(), ldy);
            ASSERT_TRUE(same_bits(y, expected))
                << kernels_for(isa).name << ' ' << info_of(format).name << " m=" << m << " n=" << n
                << " k=" << k << " [" << n0 << ',' << n1 << ')';
          }
        }
}

TEST_F(PackedTest, ARowDependsOnItselfAlone) {
  constexpr int64_t kRows = 23, kOut = 50, kIn = 256;
  for (const WeightFormat format : kPacked) {
    const Matrix w = packed(kOut, kIn, format);
    const std::vector<float> x = normal(kRows * kIn);
    for (const Isa isa : isas()) {
      std::vector<float> all(kRows * kOut);
      std::vector<float> alone(kRows * kOut);
      kernels_for(isa).matmul(x.data(), kRows, kIn, w, 0, kOut, all.data(), kOut);
      for (int64_t r = 0; r < kRows; ++r)
        kernels_for(isa).matmul(x.data() + r * kIn, 1, kIn, w, 0, kOut, alone.data() + r * kOut,
                                kOut);
      EXPECT_TRUE(same_bits(all, alone)) << kernels_for(isa).name;
    }
  }
}

TEST_F(PackedTest, WithinTheErrorOfTheIntegersOfTheInputs) {
  constexpr int64_t kOut = 33;
  for (const WeightFormat format : kPacked)
    for (const int64_t k : {7, 32, 100, 2048}) {
      const int64_t of_block = info_of(format).block_inputs;
      if (!is_rounded_to(format) && k % of_block != 0) continue;
      const Matrix w = packed(kOut, k, format);
      const std::vector<float> x = normal(k);
      std::vector<float> y(kOut);
      kernels_for(Isa::kScalar).matmul(x.data(), 1, k, w, 0, kOut, y.data(), kOut);
      std::vector<float> row(static_cast<size_t>(k));
      for (int64_t n = 0; n < kOut; ++n) {
        widen_row(w, n, row.data());
        double exact = 0.0;
        double bound = 0.0;
        double magnitude = 0.0;
        for (int64_t b = 0; b < k; b += of_block) {
          double largest = 0.0;
          double weights = 0.0;
          double inputs = 0.0;
          for (int64_t i = b; i < std::min(k, b + of_block); ++i) {
            const double xi = x[static_cast<size_t>(i)];
            const double wi = row[static_cast<size_t>(i)];
            exact += xi * wi;
            magnitude += std::fabs(xi * wi);
            largest = std::max(largest, std::fabs(xi));
            weights += std::fabs(wi);
            inputs += std::fabs(xi);
          }
          // Every input is off by at most half a step of its block; 1 % for the rounding of steps.
          bound += largest / 127.0 * 0.505 * weights;
          // A minimum is summed apart from what it is taken off: both are larger than the weight.
          magnitude += 2.0 * inputs * largest_minimum(n, b / of_block);
        }
        // One product of scales and one fused addition per block (two with minima), and the integer
        // sums of K formats as floats, each rounding by eps / 2.
        bound += 2.0 * static_cast<double>(blocks_of(format, k) + 1) * kEps * (magnitude + bound);
        EXPECT_NEAR(y[static_cast<size_t>(n)], exact, bound) << info_of(format).name << " k=" << k;
      }
    }
}

TEST_F(PackedTest, TheLargestStoredIntegersDoNotSaturate) {
  // All codes and group scales at the ends of their ranges, against inputs at theirs. Sums beyond
  // 24 bits are rounded once as floats, and once more with the scale.
  constexpr int64_t kOut = 16, kIn = 512;
  for (const DType dtype : {DType::kIQ4_NL, DType::kMXFP4, DType::kQ2_K, DType::kQ3_K, DType::kQ4_K,
                            DType::kQ5_K, DType::kQ6_K})
    for (const int fill : {0xff, 0x7f, 0x80, 0x0f, 0xf0}) {
      std::byte* to = nullptr;
      const TensorView t = make_tensor("w", dtype, {kOut, kIn}, &to);
      std::memset(to, fill, t.bytes.size());
      const BlockType& type = *block_type(dtype);
      const uint16_t one = f32_to_f16(1.0f);
      for (size_t at = 0; at < t.bytes.size(); at += static_cast<size_t>(type.bytes))
        if (dtype == DType::kMXFP4)
          to[at] = std::byte{127};
        else
          for (int h = 0; h < type.scale_count; ++h)
            std::memcpy(to + at + type.scales[static_cast<size_t>(h)], &one, sizeof(one));
      const auto w = to_matrix(t, kOut, kIn, Precision::kQ8);
      ASSERT_TRUE(w.ok());
      std::vector<float> values(kIn);
      widen_blocks(dtype, t.bytes.data(), kIn, values.data());
      for (const int signs : {0, 1, 2}) {  // all positive, all negative, alternating
        std::vector<float> x(kIn);
        double exact = 0.0, magnitude = 0.0;
        for (size_t i = 0; i < x.size(); ++i) {
          x[i] = signs == 1 || (signs == 2 && i % 2 == 1) ? -127.0f : 127.0f;
          exact += double{x[i]} * values[i];
          magnitude += 127.0 * (std::fabs(double{values[i]}) + 126.0);
        }
        for (const Isa isa : isas()) {
          std::vector<float> y(kOut);
          kernels_for(isa).matmul(x.data(), 1, kIn, *w, 0, kOut, y.data(), kOut);
          for (const float v : y)
            EXPECT_NEAR(v, exact, magnitude * 4 * kEps)
                << kernels_for(isa).name << ' ' << type.name << ' ' << fill << ' ' << signs;
        }
      }
    }
}

TEST_F(PackedTest, TheLargestIntegersDoNotSaturate) {
  // All inputs and all weights at the ends of their ranges: the sums that 16 bits hold least well.
  constexpr int64_t kOut = 16, kIn = 64;
  for (const WeightFormat format : {WeightFormat::kQ8, WeightFormat::kQ4})
    for (const float sign : {1.0f, -1.0f}) {
      const float most = format == WeightFormat::kQ8 ? 127.0f : 8.0f;
      const std::vector<float> ends(kOut * kIn, -most);
      const auto w = pack_matrix({ends.data(), WeightFormat::kF32, kOut, kIn, nullptr}, format);
      ASSERT_TRUE(w.ok());
      const std::vector<float> x(kIn, sign * 127.0f);
      for (const Isa isa : isas()) {
        std::vector<float> y(kOut);
        kernels_for(isa).matmul(x.data(), 1, kIn, *w, 0, kOut, y.data(), kOut);
        for (const float v : y) EXPECT_EQ(v, sign * -127.0f * most * kIn) << kernels_for(isa).name;
      }
    }
}

TEST_F(PackedTest, InputsThatAreNoNumbersSpoilTheirRowAlone) {
  constexpr int64_t kOut = 20;
  for (const WeightFormat format : kPacked)
    for (const float bad :
         {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      const int64_t inputs = is_rounded_to(format) ? 70 : 256;
      const Matrix w = packed(kOut, inputs, format);
      std::vector<float> x = normal(3 * inputs);
      x[static_cast<size_t>(inputs + 50)] = bad;
      for (const Isa isa : isas()) {
        std::vector<float> y(3 * kOut);
        kernels_for(isa).matmul(x.data(), 3, inputs, w, 0, kOut, y.data(), kOut);
        for (size_t i = 0; i < y.size(); ++i)
          EXPECT_EQ(std::isnan(y[i]), i / kOut == 1) << kernels_for(isa).name << ' ' << i;
      }
    }
}

TEST_F(PackedTest, ZerosAndTinyInputsGiveZeros) {
  constexpr int64_t kOut = 16, kIn = 256;
  for (const WeightFormat format : kPacked) {
    const Matrix w = packed(kOut, kIn, format);
    for (const float size : {0.0f, 1e-38f}) {
      const std::vector<float> x(kIn, size);
      for (const Isa isa : isas()) {
        std::vector<float> y(kOut, 1.0f);
        kernels_for(isa).matmul(x.data(), 1, kIn, w, 0, kOut, y.data(), kOut);
        for (const float v : y) EXPECT_EQ(v, 0.0f);
      }
    }
  }
}

TEST_F(PackedTest, RowsAreKeptForThePartsOfALoopAndNoLonger) {
  constexpr int64_t kOut = 32, kIn = 256, kRows = 5;
  for (const WeightFormat format : kPacked) {
    Matrix w = packed(kOut, kIn, format), half = w;
    half.scale = w.scale / 2;
    std::vector<float> x = normal(kRows * kIn);
    const std::vector<float> others = normal(kRows * kIn);
    for (const Isa isa : isas()) {
      const auto product = [&](const Matrix& m) {
        std::vector<float> y(kRows * kOut);
        for (int64_t n = 0; n < kOut; n += kPanelOutputs)
          kernels_for(isa).matmul(x.data(), kRows, kIn, m, n, n + kPanelOutputs, y.data(), kOut);
        return y;
      };
      const std::vector<float> alone = product(w);
      std::vector<float> twice = alone;
      for (float& v : twice) v /= 2;
      {
        const SharedInputs inputs(SharedInputs::next_loop());
        EXPECT_EQ(product(w), alone);
        EXPECT_EQ(product(half), twice);  // a matrix with another scale
        const std::vector<float> before = x;
        x = others;
        EXPECT_EQ(product(w), alone) << "rows are made once in a loop";
        x = before;
      }
      const std::vector<float> before = x;
      x = others;
      EXPECT_NE(product(w), alone);
      {
        const SharedInputs inputs(SharedInputs::next_loop());
        EXPECT_NE(product(w), alone);
      }
      x = before;
    }
  }
}

}  // namespace
}  // namespace chimera
