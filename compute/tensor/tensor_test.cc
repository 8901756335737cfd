#include "compute/tensor/tensor.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <set>

#include "base/status.h"

namespace chimera {
namespace {

// Independent reference: the value the bits stand for, by the definition of the format.
double half_value(uint16_t bits) {
  const int exponent = (bits >> 10) & 31;
  const int mantissa = bits & 1023;
  const double sign = (bits & 0x8000) != 0 ? -1.0 : 1.0;
  if (exponent == 31) {
    return mantissa == 0 ? sign * std::numeric_limits<double>::infinity() : std::nan("");
  }
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  return sign * std::ldexp(1024 + mantissa, exponent - 25);
}

TEST(ConversionTest, EveryHalfWidensExactly) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const double expected = half_value(static_cast<uint16_t>(bits));
    const float found = f16_to_f32(static_cast<uint16_t>(bits));
    if (std::isnan(expected)) {
      EXPECT_TRUE(std::isnan(found)) << bits;
    } else {
      EXPECT_EQ(static_cast<double>(found), expected) << bits;
      EXPECT_EQ(std::signbit(found), std::signbit(expected)) << bits;
    }
  }
}

TEST(ConversionTest, EveryBf16ComesBack) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float wide = bf16_to_f32(static_cast<uint16_t>(bits));
    if (std::isnan(wide)) {
      EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(wide)))) << bits;
    } else {
      EXPECT_EQ(f32_to_bf16(wide), bits);
    }
  }
}

TEST(ConversionTest, RoundsToTheNearestEven) {
  constexpr uint64_t kRandomSeed = 20;
  std::mt19937_64 random(kRandomSeed);
  for (int i = 0; i < 1'000'000; ++i) {
    const float value = std::bit_cast<float>(static_cast<uint32_t>(random()));
    if (!std::isfinite(value)) continue;
    const uint16_t cut = static_cast<uint16_t>(std::bit_cast<uint32_t>(value) >> 16);
    const double below =
        std::abs(static_cast<double>(value) - static_cast<double>(bf16_to_f32(cut)));
    const float next = bf16_to_f32(static_cast<uint16_t>(cut + 1));
    // Past the largest finite value the neighbour counts as 2^128.
    const double above = (std::isinf(next) ? 0x1p128 : std::abs(static_cast<double>(next))) -
                         std::abs(static_cast<double>(value));
    const bool up = above < below || (above == below && (cut & 1) != 0);
    ASSERT_EQ(f32_to_bf16(value), cut + (up ? 1 : 0)) << value << ", seed " << kRandomSeed;
  }
}

TEST(ConversionTest, NanNeverBecomesInfinity) {
  for (const uint32_t bits : {0x7f800001u, 0xff800001u, 0x7fffffffu, 0x7f80ffffu}) {
    EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(std::bit_cast<float>(bits)))));
  }
}

TEST(DTypeTest, NamesAndSizes) {
  std::set<std::string_view> names;
  for (int i = 0; i <= static_cast<int>(DType::kU16); ++i) {
    const auto dtype = static_cast<DType>(i);
    names.insert(dtype_name(dtype));
    EXPECT_EQ(dtype_bits(dtype) % 8, 0);
  }
  EXPECT_EQ(names.size(), 15u);
  EXPECT_EQ(dtype_name(DType::kBF16), "BF16");
  EXPECT_EQ(dtype_bits(DType::kBF16), 16);
  EXPECT_EQ(dtype_bits(DType::kF8E4M3), 8);
}

TEST(ShapeStringTest, Cases) {
  EXPECT_EQ(shape_string({}), "[]");
  EXPECT_EQ(shape_string(std::vector<int64_t>{256, 512}), "[256, 512]");
}

TEST(StatusTest, Text) {
  EXPECT_EQ(Status().to_string(), "ok");
  const Status s(Code::kNotFound, "no such module", "Run `chimera modules`.");
  EXPECT_EQ(s.to_string(), "no such module. Run `chimera modules`.");
  EXPECT_EQ(s.with_context("legal").message(), "legal: no such module");
  EXPECT_EQ(s.with_context("legal").hint(), s.hint());
  EXPECT_TRUE(Status().with_context("x").ok());
  EXPECT_EQ(code_name(Code::kDataCorrupt), "data_corrupt");
  EXPECT_EQ(code_name(static_cast<Code>(99)), "internal");
}

}  // namespace
}  // namespace chimera
