// Rounding against a search for the nearest, and the documented draws.
#include "experts/assembly/arithmetic.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <random>

namespace chimera {
namespace {

double value_of(DType dtype, uint16_t bits) {
  return dtype == DType::kBF16 ? bf16_to_f32(bits) : f16_to_f32(bits);
}

/// The nearest finite number of `dtype`, the even one of two that are as near, found by looking at
/// all of them.
uint16_t nearest_of_all(DType dtype, double value) {
  uint32_t best = 0;
  double gap = HUGE_VAL;
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const double candidate = value_of(dtype, static_cast<uint16_t>(bits));
    if (!std::isfinite(candidate) || std::signbit(candidate) != std::signbit(value)) continue;
    const double distance = std::fabs(candidate - value);
    if (distance < gap || (distance == gap && bits % 2 == 0)) {
      gap = distance;
      best = bits;
    }
  }
  return static_cast<uint16_t>(best);
}

uint16_t rounded(DType dtype, double value) {
  uint16_t bits = 0;
  EXPECT_TRUE(round_elements(&value, 1, dtype, reinterpret_cast<std::byte*>(&bits))) << value;
  return bits;
}

TEST(RoundElements, GoesToTheNearestInOneStep) {
  std::mt19937_64 random(1);
  std::uniform_real_distribution<double> exponent(-16, 3), sign(-1, 1);
  for (const DType dtype : {DType::kBF16, DType::kF16}) {
    for (int i = 0; i < 20; ++i) {
      const double value = std::copysign(std::exp2(exponent(random)), sign(random));
      EXPECT_EQ(rounded(dtype, value), nearest_of_all(dtype, value)) << value;
      // A hair off the middle between two neighbours: F32 would round to the middle first.
      const uint16_t low = rounded(dtype, value) & 0xfffe;
      const double middle =
          (value_of(dtype, low) + value_of(dtype, static_cast<uint16_t>(low + 1))) / 2;
      for (const double factor : {1 - 0x1p-40, 1.0, 1 + 0x1p-40}) {
        EXPECT_EQ(rounded(dtype, middle * factor), nearest_of_all(dtype, middle * factor))
            << middle << " * " << factor;
      }
    }
  }
}

TEST(RoundElements, RefusesWhatDoesNotFit) {
  std::array<std::byte, 4> out{};
  for (const DType dtype : {DType::kBF16, DType::kF16, DType::kF32}) {
    for (const double value : {1e39, -1e39, HUGE_VAL, std::nan("")}) {
      EXPECT_FALSE(round_elements(&value, 1, dtype, out.data())) << value;
    }
  }
  const double large = 70000;
  EXPECT_FALSE(round_elements(&large, 1, DType::kF16, out.data()));
  EXPECT_TRUE(round_elements(&large, 1, DType::kBF16, out.data()));
}

TEST(RoundElements, KeepsTheSignOfZero) {
  EXPECT_EQ(rounded(DType::kBF16, -0.0), 0x8000);
  EXPECT_EQ(rounded(DType::kF16, -1e-300), 0x8000);
}

/// Part of what recipes promise: another hash would assemble other experts from the same seed.
TEST(Draw, IsWhatIsDocumented) {
  // splitmix64 of state 0 begins so (Steele, Lea and Flood 2014, reference implementation).
  EXPECT_EQ(draw(0, 0), 0xe220a8397b1dcdafu >> 11);
  EXPECT_EQ(draw(0, 1), 0x6e789e6aa1b965f4u >> 11);
  EXPECT_NE(draw_key(1, "a", 1), draw_key(2, "a", 1));
  EXPECT_NE(draw_key(1, "a", 1), draw_key(1, "b", 1));
  EXPECT_NE(draw_key(1, "a", 1), draw_key(1, "a", 2));
}

TEST(SlerpWeights, KeepTheEndsAndFallBackToTheLine) {
  EXPECT_EQ(slerp_weights(0, 1, 1, 0), (std::pair{1.0, 0.0}));
  EXPECT_EQ(slerp_weights(0, 0, 1, 0.25), (std::pair{0.75, 0.25}));
  EXPECT_EQ(slerp_weights(0.9999, 1, 1, 0.25), (std::pair{0.75, 0.25}));
  const auto [a, b] = slerp_weights(0, 4, 9, 0.5);
  EXPECT_DOUBLE_EQ(a, std::sqrt(0.5));
  EXPECT_DOUBLE_EQ(b, std::sqrt(0.5));
}

}  // namespace
}  // namespace chimera
