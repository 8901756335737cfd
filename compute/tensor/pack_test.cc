// Packed formats: what a weight becomes, within the bounds that pack.h states.
#include "compute/tensor/pack.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace chimera {
namespace {

constexpr uint32_t kSeed = 20261127;
constexpr WeightFormat kPacked[] = {WeightFormat::kQ8, WeightFormat::kQ4};

struct Source {
  std::vector<float> values;
  Matrix matrix;
};

Source random_source(int64_t rows, int64_t cols, float size) {
  std::mt19937 random(kSeed);
  std::normal_distribution<float> normal(0.0f, size);
  Source s;
  s.values.resize(static_cast<size_t>(rows * cols));
  for (float& v : s.values) v = normal(random);
  s.matrix = {s.values.data(), WeightFormat::kF32, rows, cols, nullptr};
  return s;
}

std::vector<float> widened(const Matrix& m) {
  std::vector<float> out(static_cast<size_t>(m.rows * m.cols));
  for (int64_t r = 0; r < m.rows; ++r) widen_row(m, r, out.data() + r * m.cols);
  return out;
}

/// Calls body(first, count) for the weights of every block of every row.
template <class Body>
void for_each_block(const Matrix& m, Body body) {
  for (int64_t r = 0; r < m.rows; ++r)
    for (int64_t k = 0; k < m.cols; k += kBlockInputs)
      body(static_cast<size_t>(r * m.cols + k),
           static_cast<size_t>(std::min(kBlockInputs, m.cols - k)));
}

float largest(const std::vector<float>& v, size_t first, size_t count) {
  float most = 0.0f;
  for (size_t i = first; i < first + count; ++i) most = std::max(most, std::fabs(v[i]));
  return most;
}

TEST(Pack, TakesTheBytesThatTheFormatStates) {
  EXPECT_EQ(weight_bytes(WeightFormat::kQ8, 16, 32), 32 + 512);
  EXPECT_EQ(weight_bytes(WeightFormat::kQ4, 16, 32), 32 + 256);
  EXPECT_EQ(weight_bytes(WeightFormat::kQ8, 17, 33), 4 * 544);
  for (const WeightFormatInfo& info : kWeightFormats) EXPECT_EQ(&info_of(info.format), &info);
}

TEST(Pack, EightBitsStayWithinHalfAStep) {
  // Sizes from far below half precision's normal numbers to above its largest.
  for (const float size : {1e-9f, 1e-3f, 0.02f, 1.0f, 1e6f}) {
    const Source s = random_source(35, 100, size);
    const auto packed = pack_matrix(s.matrix, WeightFormat::kQ8);
    ASSERT_TRUE(packed.ok());
    const std::vector<float> w = widened(*packed);
    for_each_block(s.matrix, [&](size_t first, size_t count) {
      const float bound = largest(s.values, first, count) / 127.0f * 0.5005f;
      for (size_t i = first; i < first + count; ++i) EXPECT_NEAR(w[i], s.values[i], bound) << i;
    });
  }
}

TEST(Pack, FourBitsAreNoWorseThanThePlainScale) {
  for (const float size : {1e-9f, 0.02f, 1e6f}) {
    const Source s = random_source(20, 96, size);
    const auto packed = pack_matrix(s.matrix, WeightFormat::kQ4);
    ASSERT_TRUE(packed.ok());
    const std::vector<float> w = widened(*packed);
    for_each_block(s.matrix, [&](size_t first, size_t count) {
      float extreme = 0.0f;
      for (size_t i = first; i < first + count; ++i)
        if (std::fabs(s.values[i]) > std::fabs(extreme)) extreme = s.values[i];
      const double step = -double{extreme} / 8.0;
      double plain = 0.0;
      double found = 0.0;
      for (size_t i = first; i < first + count; ++i) {
        const double q = std::clamp(std::nearbyint(s.values[i] / step), -8.0, 7.0);
        plain += std::pow(s.values[i] - q * step, 2);
        found += std::pow(double{s.values[i]} - w[i], 2);
      }
      EXPECT_LE(found, plain * 1.01);  // the scale itself is rounded to 11 bits
    });
  }
}

TEST(Pack, IntegersThatFitComeBackExactly) {
  Source s = random_source(16, 64, 1.0f);
  for (size_t i = 0; i < s.values.size(); ++i)
    s.values[i] = i % 32 == 0 ? -127.0f : static_cast<float>(static_cast<int>(i * 7 % 255) - 127);
  const auto q8 = pack_matrix(s.matrix, WeightFormat::kQ8);
  ASSERT_TRUE(q8.ok());
  EXPECT_EQ(widened(*q8), s.values);
  for (size_t i = 0; i < s.values.size(); ++i)
    s.values[i] = i % 32 == 0 ? -8.0f : static_cast<float>(static_cast<int>(i * 7 % 16) - 8);
  const auto q4 = pack_matrix(s.matrix, WeightFormat::kQ4);
  ASSERT_TRUE(q4.ok());
  EXPECT_EQ(widened(*q4), s.values);
}

TEST(Pack, ZerosStayZerosAndDamageShows) {
  for (const WeightFormat format : kPacked) {
    Source s = random_source(17, 64, 1.0f);
    std::fill_n(s.values.begin(), 32, 0.0f);
    s.values[40] = std::numeric_limits<float>::infinity();  // row 0, block 1
    const auto packed = pack_matrix(s.matrix, format);
    ASSERT_TRUE(packed.ok());
    const std::vector<float> w = widened(*packed);
    for (size_t i = 0; i < 32; ++i) EXPECT_EQ(w[i], 0.0f);
    for (size_t i = 32; i < 64; ++i) EXPECT_TRUE(std::isnan(w[i]));
    for (size_t i = 64; i < w.size(); ++i) EXPECT_TRUE(std::isfinite(w[i]));
  }
}

TEST(HalfPrecision, RoundsToNearestEvenAndBack) {
  for (uint32_t half = 0; half < 0x7c00; ++half) {
    const float value = f16_to_f32(static_cast<uint16_t>(half));
    ASSERT_EQ(f32_to_f16(value), half);
    ASSERT_EQ(f32_to_f16(-value), half | 0x8000u);
    // Half-way to the next one: to the even of the two; a hair further: up.
    const float next = half == 0x7bff ? 65536.0f : f16_to_f32(static_cast<uint16_t>(half + 1));
    const float middle = value + (next - value) / 2.0f;
    ASSERT_EQ(f32_to_f16(middle), half % 2 == 0 ? half : half + 1) << half;
    ASSERT_EQ(f32_to_f16(std::nextafter(middle, 1e9f)), half + 1) << half;
  }
  EXPECT_EQ(f32_to_f16(std::numeric_limits<float>::infinity()), 0x7c00);
  EXPECT_GT(f32_to_f16(std::numeric_limits<float>::quiet_NaN()) & 0x7fff, 0x7c00);
}

}  // namespace
}  // namespace chimera
