// Blocks repacked are the blocks: what q8 and q4 hold of Q8_0 and Q4_0, and the K formats of the K
// types, widens to the same bits.
// (The numbers that every block type means are checked against another implementation by
// tests/system/test_gguf.py.)
#include "compute/tensor/block_types.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "compute/tensor/convert.h"
#include "compute/tensor/memory.h"
#include "compute/tensor/pack.h"

namespace chimera {
namespace {

/// Blocks of any codes with scales of either sign and any size, the largest and subnormal ones too.
TensorView random_blocks(DType dtype, int64_t rows, int64_t cols, std::mt19937& random) {
  std::byte* to = nullptr;
  TensorView t = make_tensor("w", dtype, {rows, cols}, &to);
  for (size_t i = 0; i < t.bytes.size(); ++i) to[i] = static_cast<std::byte>(random());
  const BlockType& type = *block_type(dtype);
  for (size_t at = 0; at < t.bytes.size(); at += static_cast<size_t>(type.bytes)) {
    for (int h = 0; h < type.scale_count; ++h) {
      const auto half = static_cast<uint16_t>((random() & 0x8000u) | random() % 0x7c00u);
      std::byte* scale = to + at + type.scales[static_cast<size_t>(h)];
      const float wide = f16_to_f32(half);
      if (type.gguf_type) {
        std::memcpy(scale, &half, sizeof(half));
      } else {
        std::memcpy(scale, &wide, sizeof(wide));
      }
    }
    if (dtype == DType::kMXFP4) to[at] = static_cast<std::byte>(random() % 253);
  }
  return t;
}

std::vector<float> wide(const TensorView& t) {
  std::vector<float> out(static_cast<size_t>(t.elements()));
  widen_blocks(t.dtype, t.bytes.data(), t.elements(), out.data());
  return out;
}

TEST(BlockTypes, RepackedIsTheSameNumberForNumber) {
  std::mt19937 random(7);
  struct Case {
    DType from;
    Precision to;
  };
  for (const Case c : {Case{DType::kQ8_0, Precision::kQ8}, Case{DType::kQ5_0, Precision::kQ8},
                       Case{DType::kQ4_0, Precision::kQ4}, Case{DType::kIQ4_NL, Precision::kQ8},
                       Case{DType::kIQ4_NL, Precision::kQ4}}) {
    for (const int64_t rows : {1, 16, 21}) {
      const TensorView t = random_blocks(c.from, rows, 96, random);
      const Result<Matrix> packed = to_matrix(t, rows, 96, c.to);
      ASSERT_TRUE(packed.ok()) << packed.status().to_string();
      EXPECT_EQ(packed->format,
                c.from == DType::kIQ4_NL ? WeightFormat::kIQ4_NL : *packed_format(c.to));
      EXPECT_EQ(packed->format, kept_format(c.from, c.to));
      std::vector<float> found(static_cast<size_t>(t.elements()));
      for (int64_t r = 0; r < rows; ++r) widen_row(*packed, r, found.data() + r * 96);
      const std::vector<float> expected = wide(t);
      EXPECT_EQ(0, std::memcmp(found.data(), expected.data(), found.size() * sizeof(float)))
          << dtype_name(c.from) << " of " << rows << " rows";
    }
  }
}

TEST(BlockTypes, Mxfp4IsKeptWhileItsScalesAreNear) {
  std::mt19937 random(14);
  TensorView t = random_blocks(DType::kMXFP4, 21, 96, random);
  auto* bytes = const_cast<std::byte*>(t.bytes.data());
  constexpr size_t kBlocks = 21 * 3, kBytes = 17;
  const auto found = [&](Precision p) {
    const Result<Matrix> packed = to_matrix(t, 21, 96, p);
    EXPECT_TRUE(packed.ok()) << packed.status().to_string();
    std::vector<float> values(21 * 96);
    for (int64_t r = 0; r < 21; ++r) widen_row(*packed, r, values.data() + r * 96);
    return std::pair(packed->format, values);
  };
  // The lowest and the highest scales of the type, 37 octaves wide, and a zero far below.
  for (const int least : {2, 100, 252 - 37}) {
    for (size_t b = 0; b < kBlocks; ++b)
      bytes[b * kBytes] = static_cast<std::byte>(least + static_cast<int>(b % 38));
    std::fill_n(bytes + 5 * kBytes, kBytes, std::byte{0});
    for (const Precision p : {Precision::kQ8, Precision::kQ4}) {
      const auto [format, values] = found(p);
      EXPECT_EQ(format, WeightFormat::kMXFP4) << least;
      EXPECT_EQ(format, kept_format(DType::kMXFP4, p));
      EXPECT_LE(weight_bytes(format, 21, 96),
                weight_bytes(charged_format(DType::kMXFP4, p), 21, 96));
      EXPECT_EQ(values, wide(t)) << least;  // as numbers: a zero may have lost its sign
    }
  }
  bytes[0] = std::byte{252 - 38};  // one octave more
  bytes[1] = std::byte{0x11};
  EXPECT_EQ(found(Precision::kQ8).first, WeightFormat::kQ8);
  EXPECT_EQ(found(Precision::kQ4).first, WeightFormat::kQ4);
  EXPECT_EQ(charged_format(DType::kMXFP4, Precision::kQ8), WeightFormat::kQ8);
  EXPECT_EQ(charged_format(DType::kMXFP4, Precision::kQ4), WeightFormat::kQ4);
}

TEST(BlockTypes, RowsAreWholeBlocks) {
  std::mt19937 random(15);
  for (const DType dtype : {DType::kQ4_K, DType::kMXFP4, DType::kQ8_0}) {
    TensorView t = random_blocks(dtype, 4, 512, random);
    t.shape = {4, 500};
    for (const Precision p : {Precision::kF32, Precision::kQ8, Precision::kQ4}) {
      const Status refused = to_matrix(t, 4, 500, p).status();
      EXPECT_EQ(refused.code(), Code::kDataCorrupt) << dtype_name(dtype);
      EXPECT_NE(refused.message().find("whole blocks"), std::string::npos) << refused.message();
    }
  }
}

TEST(BlockTypes, KTypesAreKeptNumberForNumber) {
  std::mt19937 random(13);
  constexpr int64_t kCols = 768;
  struct Case {
    DType from;
    WeightFormat q8, q4;  // under these precisions
  };
  for (const Case c : {Case{DType::kQ2_K, WeightFormat::kQ2_K, WeightFormat::kQ2_K},
                       Case{DType::kQ3_K, WeightFormat::kQ3_K, WeightFormat::kQ3_K},
                       Case{DType::kQ4_K, WeightFormat::kQ4_K, WeightFormat::kQ4_K},
                       Case{DType::kQ5_K, WeightFormat::kQ5_K, WeightFormat::kQ4},
                       Case{DType::kQ6_K, WeightFormat::kQ6_K, WeightFormat::kQ4}}) {
    for (const int64_t rows : {1, 16, 21}) {
      const TensorView t = random_blocks(c.from, rows, kCols, random);
      const std::vector<float> expected = wide(t);
      for (const Precision p : {Precision::kQ8, Precision::kQ4}) {
        const Result<Matrix> packed = to_matrix(t, rows, kCols, p);
        ASSERT_TRUE(packed.ok()) << packed.status().to_string();
        EXPECT_EQ(packed->format, p == Precision::kQ8 ? c.q8 : c.q4) << dtype_name(c.from);
        EXPECT_EQ(kept_format(c.from, p), packed->format);
        if (packed->format == WeightFormat::kQ4) continue;  // rounded: pack_test.cc
        std::vector<float> found(expected.size());
        for (int64_t r = 0; r < rows; ++r) widen_row(*packed, r, found.data() + r * kCols);
        EXPECT_EQ(0, std::memcmp(found.data(), expected.data(), found.size() * sizeof(float)))
            << dtype_name(c.from) << " of " << rows << " rows";
      }
    }
  }
  // A stack of experts: the second one's rows alone.
  const TensorView stack = random_blocks(DType::kQ4_K, 2 * 20, 256, random);
  TensorView three = stack;
  three.shape = {2, 20, 256};
  const Result<Matrix> part = slice_matrix(three, 1, 3, 17, 256, Precision::kQ8);
  ASSERT_TRUE(part.ok()) << part.status().to_string();
  std::vector<float> found(17 * 256);
  for (int64_t r = 0; r < 17; ++r) widen_row(*part, r, found.data() + r * 256);
  const std::vector<float> all = wide(stack);
  EXPECT_EQ(0, std::memcmp(found.data(), all.data() + 23 * 256, found.size() * sizeof(float)));
}

/// Puts scale and offset = -zero * scale into every block of INT4_AFFINE.
void set_zeros(TensorView& t, std::mt19937& random) {
  auto* to = const_cast<std::byte*>(t.bytes.data());
  for (int64_t at = 0; at < static_cast<int64_t>(t.bytes.size());
       at += unit_of(DType::kInt4Affine).bytes) {
    const float scale = bf16_to_f32(static_cast<uint16_t>(0x3800 + random() % 0x400));
    const float offset = -static_cast<float>(random() % 17) * scale;
    std::memcpy(to + at, &scale, sizeof(scale));
    std::memcpy(to + at + 4, &offset, sizeof(offset));
  }
}

TEST(BlockTypes, IntegersAreRepackedWithScalesOfSixteenBits) {
  std::mt19937 random(11);
  struct Case {
    DType from;
    Precision to;
  };
  for (const Case c :
       {Case{DType::kInt4, Precision::kQ4}, Case{DType::kInt4, Precision::kQ8},
        Case{DType::kInt8, Precision::kQ8}, Case{DType::kInt4Affine, Precision::kQ8}}) {
    TensorView t = random_blocks(c.from, 21, 96, random);
    auto* bytes = const_cast<std::byte*>(t.bytes.data());
    if (c.from == DType::kInt4Affine) {
      set_zeros(t, random);
    } else {  // half precision, within a factor of 2^27 of the largest
      for (size_t at = 0; at < t.bytes.size(); at += static_cast<size_t>(unit_of(c.from).bytes)) {
        const float scale = f16_to_f32(static_cast<uint16_t>(0x1000 + random() % 0x2000));
        std::memcpy(bytes + at, &scale, sizeof(scale));
      }
    }
    const Result<Matrix> packed = to_matrix(t, 21, 96, c.to);
    ASSERT_TRUE(packed.ok()) << packed.status().to_string();
    std::vector<float> found(static_cast<size_t>(t.elements()));
    for (int64_t r = 0; r < 21; ++r) widen_row(*packed, r, found.data() + r * 96);
    // As numbers: a zero may have lost its sign.
    EXPECT_EQ(found, wide(t)) << dtype_name(c.from);
  }
}

TEST(BlockTypes, OffsetsThatAreNoZeroPointsArePackedWithTheirError) {
  std::mt19937 random(12);
  TensorView t = random_blocks(DType::kInt4Affine, 16, 64, random);
  set_zeros(t, random);
  const float offset = 0.123f;
  std::memcpy(const_cast<std::byte*>(t.bytes.data()) + 4, &offset, sizeof(offset));
  const Result<Matrix> packed = to_matrix(t, 16, 64, Precision::kQ8);
  ASSERT_TRUE(packed.ok()) << packed.status().to_string();
  std::vector<float> found(64);
  widen_row(*packed, 0, found.data());
  const std::vector<float> expected = wide(t);
  float most = 0.0f;
  for (int i = 0; i < 32; ++i) most = std::max(most, std::fabs(expected[static_cast<size_t>(i)]));
  for (size_t i = 0; i < 32; ++i) EXPECT_NEAR(found[i], expected[i], most / 127 * 0.5005f);
}

TEST(BlockTypes, AllWidenToFiniteNumbersAndRoundToBf16OneByOne) {
  std::mt19937 random(8);
  for (const BlockType& type : block_types()) {
    const TensorView t = random_blocks(type.dtype, 3, 512, random);
    EXPECT_EQ(first_non_finite_block(type.dtype, t.bytes), -1) << type.name;
    const std::vector<float> values = wide(t);
    for (const float v : values) ASSERT_TRUE(std::isfinite(v)) << type.name;
    const Result<Matrix> narrow = to_matrix(t, 3, 512, Precision::kBF16);
    ASSERT_TRUE(narrow.ok()) << narrow.status().to_string();
    const auto* rounded = static_cast<const uint16_t*>(narrow->data);
    for (size_t i = 0; i < values.size(); ++i) ASSERT_EQ(rounded[i], f32_to_bf16(values[i]));
  }
}

TEST(BlockTypes, AnInfiniteScaleIsFound) {
  std::mt19937 random(9);
  for (const BlockType& type : block_types()) {
    TensorView t = random_blocks(type.dtype, 1, 1024, random);
    const int64_t block = 1024 / type.elements - 1;
    auto* at = const_cast<std::byte*>(t.bytes.data()) + block * type.bytes;
    const uint16_t infinity = 0x7c00;
    const float too_large = 1e38f;  // times a code it would be one
    const auto last = static_cast<size_t>(std::max(0, type.scale_count - 1));
    if (!type.gguf_type)
      std::memcpy(at + type.scales[last], &too_large, sizeof(too_large));
    else if (type.scale_count > 0)
      std::memcpy(at + type.scales[last], &infinity, 2);
    else
      at[0] = std::byte{255};
    EXPECT_EQ(first_non_finite_block(type.dtype, t.bytes), block) << type.name;
  }
}

TEST(BlockTypes, SizesAreCheckedInWholeBlocks) {
  EXPECT_EQ(dense_bytes(DType::kQ4_K, std::vector<int64_t>{3, 512}), 3 * 2 * 144);
  EXPECT_EQ(dense_bytes(DType::kQ4_K, std::vector<int64_t>{512, 3}), std::nullopt);
  EXPECT_EQ(dense_bytes(DType::kF32, std::vector<int64_t>{}), 4);
  EXPECT_EQ(dense_bytes(DType::kQ8_0, std::vector<int64_t>{}), std::nullopt);
  EXPECT_EQ(dense_bytes(DType::kF32, std::vector<int64_t>{int64_t{1} << 40, int64_t{1} << 40}),
            std::nullopt);
  EXPECT_EQ(dense_bytes(DType::kF32, std::vector<int64_t>{int64_t{1} << 60, 0}), 0);
  // A zero does not excuse what would overflow whoever multiplies the other dimensions.
  EXPECT_EQ(dense_bytes(DType::kF32, std::vector<int64_t>{int64_t{1} << 62, 4, 0}), std::nullopt);
  EXPECT_EQ(dense_bytes(DType::kF32, std::vector<int64_t>{-1}), std::nullopt);
}

}  // namespace
}  // namespace chimera
