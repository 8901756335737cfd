// Packed matrices as tensors: types, sizes, which precision takes which format, and numbers that
// are none.
#include "compute/tensor/packed_tensor.h"

#include <gtest/gtest.h>

#include <cstring>
#include <initializer_list>
#include <random>
#include <vector>

#include "compute/tensor/convert.h"
#include "compute/tensor/k_layout.h"
#include "compute/tensor/memory.h"
#include "compute/tensor/pack.h"

namespace chimera {
namespace {

TensorView random_tensor(int64_t rows, int64_t cols) {
  std::byte* to = nullptr;
  TensorView t = make_tensor("w", DType::kF32, {rows, cols}, &to);
  std::mt19937 rng(1);
  std::normal_distribution<float> normal(0.0f, 0.02f);
  for (int64_t i = 0; i < rows * cols; ++i) {
    const float value = normal(rng);
    std::memcpy(to + 4 * i, &value, sizeof(value));
  }
  return t;
}

TEST(PackedTensor, EveryPackedFormatHasATypeOfItsOwn) {
  for (const WeightFormatInfo& info : kWeightFormats) {
    if (!is_packed(info.format)) continue;
    const DType type = packed_type(info.format);
    EXPECT_TRUE(is_packed_type(type));
    EXPECT_FALSE(is_block_type(type));
    EXPECT_EQ(format_of_packed(type), info.format);
    EXPECT_EQ(dense_bytes(type, std::vector<int64_t>{40, 512}), weight_bytes(info.format, 40, 512));
    EXPECT_EQ(dense_bytes(type, std::vector<int64_t>{40}), std::nullopt);
    EXPECT_EQ(dense_bytes(type, std::vector<int64_t>{0, 512}), std::nullopt);
    EXPECT_EQ(dense_bytes(type, std::vector<int64_t>{int64_t{1} << 40, 512}), std::nullopt);
  }
  EXPECT_EQ(dense_bytes(DType::kPackedQ4_K, std::vector<int64_t>{40, 300}), std::nullopt);
}

TEST(PackedTensor, APrecisionTakesWhatItMakesItself) {
  for (const WeightFormatInfo& info : kWeightFormats) {
    EXPECT_FALSE(runs_packed(info.format, Precision::kF32)) << info.name;
    EXPECT_FALSE(runs_packed(info.format, Precision::kBF16)) << info.name;
  }
  EXPECT_TRUE(runs_packed(WeightFormat::kQ8, Precision::kQ8));
  EXPECT_FALSE(runs_packed(WeightFormat::kQ4, Precision::kQ8));
  EXPECT_FALSE(runs_packed(WeightFormat::kQ8, Precision::kQ4));
  EXPECT_TRUE(runs_packed(WeightFormat::kMXFP4, Precision::kQ8));
  EXPECT_TRUE(runs_packed(WeightFormat::kMXFP4, Precision::kQ4));
  EXPECT_TRUE(runs_packed(WeightFormat::kQ6_K, Precision::kQ8));
  EXPECT_FALSE(runs_packed(WeightFormat::kQ6_K, Precision::kQ4));
  EXPECT_TRUE(runs_packed(WeightFormat::kQ4_K, Precision::kQ4));
}

TEST(PackedTensor, IsUsedInPlaceWhereItIsAlignedAndCopiedElsewhere) {
  const TensorView wide = random_tensor(37, 70);
  const auto made = to_matrix(wide, 37, 70, Precision::kQ8);
  ASSERT_TRUE(made.ok());
  const TensorView t = packed_tensor("w", *made);
  const auto found = to_matrix(t, 37, 70, Precision::kQ8);
  ASSERT_TRUE(found.ok());
  EXPECT_EQ(found->data, made->data);
  EXPECT_EQ(found->scale, made->scale);

  std::vector<std::byte> odd(t.bytes.size() + 128);
  size_t at = 1;
  while (reinterpret_cast<uintptr_t>(odd.data() + at) % kPackedAlignment != 2) ++at;
  std::memcpy(odd.data() + at, t.bytes.data(), t.bytes.size());
  TensorView moved = t;
  moved.bytes = std::span(odd).subspan(at, t.bytes.size());
  const auto copied = to_matrix(moved, 37, 70, Precision::kQ8);
  ASSERT_TRUE(copied.ok());
  EXPECT_NE(copied->data, static_cast<const void*>(moved.bytes.data()));
  EXPECT_EQ(std::memcmp(copied->data, made->data, made->bytes()), 0);

  EXPECT_EQ(to_matrix(t, 37, 71, Precision::kQ8).status().code(), Code::kDataCorrupt);
  const auto refused = to_matrix(t, 37, 70, Precision::kBF16);
  EXPECT_EQ(refused.status().code(), Code::kFailedPrecondition);
  EXPECT_NE(refused.status().message().find("packed as q8"), std::string::npos);
  EXPECT_EQ(check_number_dtype(t).code(), Code::kUnimplemented);
}

TEST(PackedTensor, AScaleOrMinimumThatIsNoNumberIsFoundInEveryFormat) {
  constexpr int64_t kRows = 37, kCols = 512;
  for (const WeightFormatInfo& info : kWeightFormats) {
    if (!is_packed(info.format)) continue;
    std::vector<std::byte> bytes(static_cast<size_t>(weight_bytes(info.format, kRows, kCols)));
    const Matrix zeros{bytes.data(), info.format, kRows, kCols, nullptr, 1.0f};
    const TensorView t = packed_tensor("w", zeros);
    EXPECT_EQ(first_non_finite_packed(t), -1) << info.name;
    // The second block of the second panel: outputs 16 to 31. Minima follow the scales.
    const int64_t blocks = blocks_of(info.format, kCols);
    const auto block = static_cast<size_t>((blocks + 1) * info.block_bytes);
    const bool minima = is_k_format(info.format) && k_layout(info.format).minima;
    for (size_t i = 0; i < (minima ? 32u : 16u); ++i) {
      for (const uint16_t bad : std::initializer_list<uint16_t>{0x7c00, 0xfc00, 0x7e00, 0xfdff}) {
        std::memcpy(bytes.data() + block + 2 * i, &bad, sizeof(bad));
        const auto output = 16 + static_cast<int64_t>(i % 16);
        EXPECT_EQ(first_non_finite_packed(t), output * kCols + info.block_inputs)
            << info.name << " " << i << " " << bad;
      }
      const uint16_t most = 0x7bff;
      std::memcpy(bytes.data() + block + 2 * i, &most, sizeof(most));
      EXPECT_EQ(first_non_finite_packed(t), -1) << info.name << " " << i;
    }
  }
}

}  // namespace
}  // namespace chimera
