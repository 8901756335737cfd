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
#include "compute/tensor/pack.h"

namespace chimera {
namespace {

constexpr WeightFormat kPacked[] = {WeightFormat::kQ8, WeightFormat::kQ4};
constexpr double kEps = std::numeric_limits<float>::epsilon();

std::vector<Isa> isas() {
  std::vector<Isa> all = vector_isas();
  all.insert(all.begin(), Isa::kScalar);
  return all;
}

class PackedTest : public RandomOperands {
 protected:
  Matrix packed(int64_t rows, int64_t cols, WeightFormat format) {
    const std::vector<float> w = normal(rows * cols, 0.02f);
    auto out = pack_matrix({w.data(), WeightFormat::kF32, rows, cols, nullptr}, format);
    EXPECT_TRUE(out.ok());
    return *out;
  }
};

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

TEST_F(PackedTest, BitwiseEqualOnEveryInstructionSet) {
  for (const WeightFormat format : kPacked)
    for (const int64_t m : {1, 2, 3, 4, 5, 7, 9, 33})
      for (const int64_t n : {1, 15, 16, 17, 40, 64, 100})
        for (const int64_t k : {1, 31, 32, 33, 96, 100, 256}) {
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
  constexpr int64_t kRows = 23, kOut = 50, kIn = 200;
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
        for (int64_t b = 0; b < k; b += kBlockInputs) {
          double largest = 0.0;
          double weights = 0.0;
          for (int64_t i = b; i < std::min(k, b + kBlockInputs); ++i) {
            const double xi = x[static_cast<size_t>(i)];
            const double wi = row[static_cast<size_t>(i)];
            exact += xi * wi;
            magnitude += std::fabs(xi * wi);
            largest = std::max(largest, std::fabs(xi));
            weights += std::fabs(wi);
          }
          // Every input is off by at most half a step of its block; 1 % for the rounding of steps.
          bound += largest / 127.0 * 0.505 * weights;
        }
        // One product of scales and one fused addition per block, each rounding by eps / 2.
        bound += static_cast<double>(blocks_of(k) + 1) * kEps * (magnitude + bound);
        EXPECT_NEAR(y[static_cast<size_t>(n)], exact, bound) << info_of(format).name << " k=" << k;
      }
    }
}

TEST_F(PackedTest, TheLargestIntegersDoNotSaturate) {
  // All inputs and all weights at the ends of their ranges: the sums that 16 bits hold least well.
  constexpr int64_t kOut = 16, kIn = 64;
  for (const WeightFormat format : kPacked)
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
  constexpr int64_t kOut = 20, kIn = 70;
  for (const WeightFormat format : kPacked)
    for (const float bad :
         {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      const Matrix w = packed(kOut, kIn, format);
      std::vector<float> x = normal(3 * kIn);
      x[kIn + 50] = bad;
      for (const Isa isa : isas()) {
        std::vector<float> y(3 * kOut);
        kernels_for(isa).matmul(x.data(), 3, kIn, w, 0, kOut, y.data(), kOut);
        for (size_t i = 0; i < y.size(); ++i)
          EXPECT_EQ(std::isnan(y[i]), i / kOut == 1) << kernels_for(isa).name << ' ' << i;
      }
    }
}

TEST_F(PackedTest, ZerosAndTinyInputsGiveZeros) {
  constexpr int64_t kOut = 16, kIn = 32;
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

}  // namespace
}  // namespace chimera
