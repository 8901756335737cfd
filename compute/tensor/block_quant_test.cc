// FP8 and MXFP4 against their definitions, element by element.
#include "compute/tensor/block_quant.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "compute/tensor/pack.h"
#include "compute/tensor/repack.h"

namespace chimera {
namespace {

template <class T>
TensorView tensor(const char* name, DType dtype, std::vector<int64_t> shape,
                  const std::vector<T>& values) {
  auto memory = std::make_shared<std::vector<T>>(values);
  return {name, dtype, std::move(shape), std::as_bytes(std::span(*memory)), memory};
}

/// E4M3 by its definition: bias 7, no infinity, one NaN per sign.
double e4m3(unsigned code) {
  const double sign = (code & 0x80u) != 0 ? -1.0 : 1.0;
  const int exponent = static_cast<int>(code >> 3 & 15u);
  const double mantissa = (code & 7u) / 8.0;
  return sign * (exponent == 0 ? mantissa * 0.015625 : (1.0 + mantissa) * std::exp2(exponent - 7));
}

TEST(Fp8, EveryCode) {
  for (unsigned code = 0; code < 256; ++code) {
    const float value = f8e4m3_to_f32(static_cast<uint8_t>(code));
    if ((code & 0x7fu) == 0x7fu) {
      EXPECT_TRUE(std::isnan(value)) << code;
    } else {
      EXPECT_EQ(double{value}, e4m3(code)) << code;
    }
  }
  EXPECT_EQ(f8e4m3_to_f32(0x7e), 448.0f);  // the largest
}

TEST(Fp8, BlocksAtTheEdgesHaveScalesOfTheirOwn) {
  constexpr int64_t kRows = 5;
  constexpr int64_t kCols = 7;
  const BlockShape block{2, 3};
  std::mt19937 rng(1);
  std::vector<uint8_t> codes(kRows * kCols);
  for (uint8_t& code : codes) code = static_cast<uint8_t>(rng() % 0x7f);
  std::vector<float> scales;
  for (int i = 0; i < 3 * 3; ++i) scales.push_back(0.5f + static_cast<float>(i));
  const auto matrix = fp8_matrix(tensor("w", DType::kF8E4M3, {kRows, kCols}, codes),
                                 tensor("w_scale_inv", DType::kF32, {3, 3}, scales), block);
  ASSERT_TRUE(matrix.ok()) << matrix.status().to_string();
  EXPECT_EQ(matrix->bytes(), 35u + 36u);
  std::vector<float> got(kRows * kCols);
  matrix->widen(0, 2, got.data());  // in two goes, which must not matter
  matrix->widen(2, kRows, got.data() + 2 * kCols);
  const auto f32 = widen_matrix(*matrix, Precision::kF32);
  const auto bf16 = widen_matrix(*matrix, Precision::kBF16);
  ASSERT_TRUE(f32.ok() && bf16.ok());
  for (int64_t r = 0; r < kRows; ++r) {
    for (int64_t c = 0; c < kCols; ++c) {
      const auto at = static_cast<size_t>(r * kCols + c);
      const float want = static_cast<float>(e4m3(codes[at]) *
                                            double{scales[static_cast<size_t>(r / 2 * 3 + c / 3)]});
      EXPECT_EQ(got[at], want);
      EXPECT_EQ(static_cast<const float*>(f32->data)[at], want);
      EXPECT_EQ(static_cast<const uint16_t*>(bf16->data)[at], f32_to_bf16(want));
    }
  }
}

TEST(Fp8, WhatDoesNotFitIsRefused) {
  const std::vector<uint8_t> codes(16, 0x38);
  const auto weight = tensor("w", DType::kF8E4M3, {4, 4}, codes);
  const auto scale = tensor("s", DType::kF32, {1, 1}, std::vector<float>{1.0f});
  EXPECT_TRUE(fp8_matrix(weight, scale, {}).ok());
  EXPECT_EQ(fp8_matrix(weight, scale, {2, 4}).status().code(), Code::kDataCorrupt);
  const auto wrong = tensor("s", DType::kU8, {1, 1}, std::vector<uint8_t>{0x3f});
  EXPECT_EQ(fp8_matrix(weight, wrong, {}).status().code(), Code::kDataCorrupt);
  EXPECT_EQ(fp8_matrix(scale, scale, {}).status().code(), Code::kDataCorrupt);
}

TEST(Fp8, NanIsFound) {
  std::vector<uint8_t> codes(16, 0x38);
  const auto scale = tensor("s", DType::kF32, {1, 1}, std::vector<float>{1.0f});
  auto matrix = fp8_matrix(tensor("w", DType::kF8E4M3, {4, 4}, codes), scale, {});
  ASSERT_TRUE(matrix.ok());
  EXPECT_TRUE(matrix->check_finite("w").ok());
  codes[9] = 0xff;
  matrix = fp8_matrix(tensor("w", DType::kF8E4M3, {4, 4}, codes), scale, {});
  const Status status = matrix->check_finite("w");
  EXPECT_EQ(status.code(), Code::kDataCorrupt);
  EXPECT_NE(status.message().find("row 2"), std::string::npos) << status.message();
  const auto bad = tensor("s", DType::kF32, {1, 1}, std::vector<float>{HUGE_VALF});
  codes[9] = 0;
  matrix = fp8_matrix(tensor("w", DType::kF8E4M3, {4, 4}, codes), bad, {});
  EXPECT_EQ(matrix->check_finite("w").code(), Code::kDataCorrupt);
}

TEST(Mxfp4, EveryCodeAtEveryScale) {
  constexpr std::array kValues{0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0};
  std::vector<uint8_t> codes;
  for (int i = 0; i < 256; ++i) codes.push_back(static_cast<uint8_t>(i));
  std::vector<uint8_t> scales;
  QuantMatrix m;
  m.format = QuantMatrix::Format::kMxfp4;
  m.rows = 1;
  m.cols = 512;
  m.codes = std::as_bytes(std::span(codes)).data();
  m.code_step = 256;
  m.scale_step = 16;
  std::vector<float> got(512);
  for (const int scale : {0, 1, 100, 127, 128, 200, 252}) {
    scales.assign(16, static_cast<uint8_t>(scale));
    m.scales = std::as_bytes(std::span(scales)).data();
    EXPECT_TRUE(m.check_finite("w").ok());
    m.widen(0, 1, got.data());
    for (size_t i = 0; i < got.size(); ++i) {
      const unsigned code = i % 2 == 0 ? codes[i / 2] & 15u : codes[i / 2] >> 4;  // low first
      const double magnitude = kValues[code & 7u] * std::exp2(scale - 127);
      EXPECT_EQ(double{got[i]}, (code & 8u) != 0 ? -magnitude : magnitude) << i;
    }
  }
  EXPECT_EQ(m.bytes(), 256u + 16u);
  scales[15] = 255;
  EXPECT_EQ(m.check_finite("w").code(), Code::kDataCorrupt);
}

TEST(Mxfp4, RepackedBitForBit) {
  constexpr int64_t kRows = 21, kCols = 96;  // a panel that is not full
  std::mt19937 rng(3);
  std::vector<uint8_t> codes(kRows * kCols / 2 + 7), scales(kRows * (kCols / 32) + 5);
  for (uint8_t& code : codes) code = static_cast<uint8_t>(rng());
  for (uint8_t& scale : scales) scale = static_cast<uint8_t>(100 + rng() % 37);
  QuantMatrix m;
  m.format = QuantMatrix::Format::kMxfp4;
  m.rows = kRows;
  m.cols = kCols;
  m.codes = std::as_bytes(std::span(codes)).data();
  m.code_step = kCols / 2;
  m.scales = std::as_bytes(std::span(scales)).data();
  m.scale_step = kCols / 32;
  const auto packed = repack_mxfp4(m);
  ASSERT_TRUE(packed.ok() && packed->has_value());
  EXPECT_EQ((*packed)->format, WeightFormat::kMXFP4);
  std::vector<float> want(kCols), got(kCols);
  for (int64_t r = 0; r < kRows; ++r) {
    m.widen(r, r + 1, want.data());
    widen_row(**packed, r, got.data());
    EXPECT_EQ(got, want) << r;  // -0 equals 0
  }
  scales[4] = 90;  // 46 powers of two below another
  codes[16] = 0x22;
  const auto apart = repack_mxfp4(m);
  ASSERT_TRUE(apart.ok());
  EXPECT_FALSE(apart->has_value());
}

}  // namespace
}  // namespace chimera
