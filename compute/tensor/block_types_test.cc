// Blocks repacked are the blocks: what q8 and q4 hold of Q8_0 and Q4_0 widens to the same bits.
// (The numbers that every block type means are checked against another implementation by
// tests/system/test_gguf.py.)
#include "compute/tensor/block_types.h"

#include <gtest/gtest.h>

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
    for (int h = 0; h < type.half_count; ++h) {
      const auto half = static_cast<uint16_t>((random() & 0x8000u) | random() % 0x7c00u);
      std::memcpy(to + at + type.halves[static_cast<size_t>(h)], &half, sizeof(half));
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
  for (const Case c : {Case{DType::kQ8_0, Precision::kQ8}, Case{DType::kQ4_0, Precision::kQ4}}) {
    for (const int64_t rows : {1, 16, 21}) {
      const TensorView t = random_blocks(c.from, rows, 96, random);
      const Result<Matrix> packed = to_matrix(t, rows, 96, c.to);
      ASSERT_TRUE(packed.ok()) << packed.status().to_string();
      EXPECT_EQ(packed->format, *packed_format(c.to));
      std::vector<float> found(static_cast<size_t>(t.elements()));
      for (int64_t r = 0; r < rows; ++r) widen_row(*packed, r, found.data() + r * 96);
      const std::vector<float> expected = wide(t);
      EXPECT_EQ(0, std::memcmp(found.data(), expected.data(), found.size() * sizeof(float)))
          << dtype_name(c.from) << " of " << rows << " rows";
    }
  }
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
    if (type.half_count > 0)
      std::memcpy(at + type.halves[static_cast<size_t>(type.half_count - 1)], &infinity, 2);
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
