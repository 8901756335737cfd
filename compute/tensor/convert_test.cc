// to_matrix, slice_matrix, to_f32: which memory is shared, which values come out.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <numeric>
#include <tuple>

#include "compute/tensor/convert.h"
#include "compute/tensor/pack.h"

namespace chimera {
namespace {

using testing::HasSubstr;

/// A tensor over memory of its own, `offset` bytes past an aligned address.
TensorView make(DType dtype, std::vector<int64_t> shape, const void* data, size_t bytes,
                size_t offset = 0) {
  auto memory = std::make_shared<std::vector<uint64_t>>(bytes / 8 + 2);
  std::byte* at = reinterpret_cast<std::byte*>(memory->data()) + offset;
  if (bytes > 0) std::memcpy(at, data, bytes);
  return {"w", dtype, std::move(shape), {at, bytes}, memory};
}

std::vector<float> values_of(const Matrix& m) {
  std::vector<float> out(static_cast<size_t>(m.rows * m.cols));
  for (int64_t r = 0; r < m.rows; ++r) widen_row(m, r, out.data() + r * m.cols);
  return out;
}

// 1 + 2^-8 lies half-way between two BF16 values and goes to the even one, 1; 1 + 3 * 2^-8 goes up.
constexpr float kF32[] = {1.0f, -2.5f, 1.00390625f, 1.01171875f, 0.0f, 3e38f};
const std::vector<float> kRounded = {1.0f, -2.5f, 1.0f, 1.015625f, 0.0f, bf16_to_f32(0x7f62)};
// The same first five as F16 and a subnormal, 2^-24.
constexpr uint16_t kF16[] = {0x3c00, 0xc100, 0x3c04, 0x3c0c, 0x0000, 0x0001};
constexpr uint16_t kBF16[] = {0x3f80, 0xc020, 0x3f81, 0x0000, 0x8000, 0x7f80};

TEST(ToMatrixTest, SharesMemoryWhenTheDtypeFits) {
  const TensorView f32 = make(DType::kF32, {2, 3}, kF32, sizeof(kF32));
  const TensorView bf16 = make(DType::kBF16, {2, 3}, kBF16, sizeof(kBF16));
  const TensorView f16 = make(DType::kF16, {2, 3}, kF16, sizeof(kF16));
  for (const auto& [t, p, name] :
       {std::tuple(f32, Precision::kF32, "f32"), std::tuple(bf16, Precision::kF32, "bf16"),
        std::tuple(bf16, Precision::kBF16, "bf16"), std::tuple(f16, Precision::kF32, "f16")}) {
    const auto m = to_matrix(t, 2, 3, p);
    ASSERT_TRUE(m.ok());
    EXPECT_EQ(m->data, t.bytes.data());
    EXPECT_EQ(info_of(m->format).name, name);
    EXPECT_TRUE(is_stored_as(t.dtype, m->format));
    EXPECT_EQ(m->owner, t.owner);
    EXPECT_EQ(m->bytes(), t.bytes.size());
  }
}

TEST(ToMatrixTest, CopiesWhatIsNotAligned) {
  const TensorView f32 = make(DType::kF32, {2, 3}, kF32, sizeof(kF32), 1);
  const TensorView bf16 = make(DType::kBF16, {2, 3}, kBF16, sizeof(kBF16), 3);
  const TensorView f16 = make(DType::kF16, {2, 3}, kF16, sizeof(kF16), 1);
  for (const auto& [t, name] :
       {std::pair(f32, "f32"), std::pair(bf16, "bf16"), std::pair(f16, "f16")}) {
    const auto m = to_matrix(t, 2, 3, Precision::kF32);
    ASSERT_TRUE(m.ok());
    EXPECT_EQ(reinterpret_cast<uintptr_t>(m->data) % 64, 0u);
    EXPECT_EQ(info_of(m->format).name, name);
    EXPECT_EQ(std::memcmp(m->data, t.bytes.data(), t.bytes.size()), 0);
  }
}

TEST(ToMatrixTest, WidensAndRounds) {
  for (const size_t offset : {0u, 1u}) {
    const auto same =
        to_matrix(make(DType::kF16, {2, 3}, kF16, sizeof(kF16), offset), 2, 3, Precision::kF32);
    ASSERT_TRUE(same.ok());
    EXPECT_EQ(values_of(*same),
              (std::vector<float>{1.0f, -2.5f, 1.00390625f, 1.01171875f, 0.0f, 0x1p-24f}));
    const auto half =
        to_matrix(make(DType::kF16, {2, 3}, kF16, sizeof(kF16), offset), 2, 3, Precision::kBF16);
    ASSERT_TRUE(half.ok());
    EXPECT_EQ(half->format, WeightFormat::kBF16);
    EXPECT_EQ(values_of(*half), (std::vector<float>{1.0f, -2.5f, 1.0f, 1.015625f, 0.0f, 0x1p-24f}));
    const auto rounded =
        to_matrix(make(DType::kF32, {2, 3}, kF32, sizeof(kF32), offset), 2, 3, Precision::kBF16);
    ASSERT_TRUE(rounded.ok());
    EXPECT_EQ(rounded->format, WeightFormat::kBF16);
    EXPECT_EQ(values_of(*rounded), kRounded);
  }
}

TEST(ToMatrixTest, PacksWhatIsStoredInTwoBytesAsTheSameNumbersInFour) {
  const std::vector<float> wide = values_of({kF16, WeightFormat::kF16, 2, 3, nullptr});
  const TensorView f16 = make(DType::kF16, {2, 3}, kF16, sizeof(kF16));
  const TensorView f32 = make(DType::kF32, {2, 3}, wide.data(), wide.size() * sizeof(float));
  for (const Precision p : {Precision::kQ8, Precision::kQ4}) {
    const auto found = to_matrix(f16, 2, 3, p);
    const auto expected = to_matrix(f32, 2, 3, p);
    ASSERT_TRUE(found.ok() && expected.ok());
    EXPECT_EQ(found->scale, expected->scale);
    EXPECT_EQ(std::memcmp(found->data, expected->data, expected->bytes()), 0);
  }
}

TEST(ToMatrixTest, OutlivesTheTensor) {
  Result<Matrix> m = Status(Code::kInternal, "unset");
  {
    const TensorView t = make(DType::kF32, {2, 3}, kF32, sizeof(kF32));
    m = to_matrix(t, 2, 3, Precision::kF32);
  }
  ASSERT_TRUE(m.ok());
  EXPECT_EQ(values_of(*m), (std::vector<float>(std::begin(kF32), std::end(kF32))));
}

TEST(ToMatrixTest, RefusesOtherShapesAndDtypes) {
  const TensorView t = make(DType::kF32, {2, 3}, kF32, sizeof(kF32));
  for (const auto& [rows, cols] : {std::pair(3, 2), std::pair(2, 2), std::pair(-1, 3)}) {
    const auto m = to_matrix(t, rows, cols, Precision::kF32);
    EXPECT_EQ(m.status().code(), Code::kDataCorrupt);
    EXPECT_THAT(m.status().message(), HasSubstr("has shape [2, 3]"));
  }
  EXPECT_FALSE(to_matrix(make(DType::kF32, {6}, kF32, sizeof(kF32)), 6, 1, Precision::kF32).ok());
  for (const DType dtype : {DType::kI32, DType::kU32}) {
    const auto m = to_matrix(make(dtype, {2, 3}, kF32, sizeof(kF32)), 2, 3, Precision::kF32);
    EXPECT_EQ(m.status().code(), Code::kUnimplemented);
    EXPECT_THAT(m.status().message(), HasSubstr(std::string(dtype_name(dtype))));
  }
}

TEST(ToMatrixTest, EmptyTensors) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (const Precision p : {Precision::kF32, Precision::kBF16}) {
      const auto m = to_matrix(make(dtype, {0, 3}, nullptr, 0), 0, 3, p);
      ASSERT_TRUE(m.ok());
      EXPECT_EQ(m->bytes(), 0u);
    }
  }
}

TEST(SliceMatrixTest, TakesRowsOfOneMatrix) {
  std::vector<float> data(3 * 4 * 2);  // [3, 4, 2], element = its index
  std::iota(data.begin(), data.end(), 0.0f);
  const TensorView t = make(DType::kF32, {3, 4, 2}, data.data(), data.size() * 4);
  const auto whole = slice_matrix(t, 1, 0, 4, 2, Precision::kF32);
  ASSERT_TRUE(whole.ok());
  EXPECT_EQ(values_of(*whole), (std::vector<float>{8, 9, 10, 11, 12, 13, 14, 15}));
  EXPECT_EQ(whole->owner, t.owner);
  const auto lower = slice_matrix(t, 2, 2, 2, 2, Precision::kBF16);
  ASSERT_TRUE(lower.ok());
  EXPECT_EQ(values_of(*lower), (std::vector<float>{20, 21, 22, 23}));
  EXPECT_EQ(lower->rows, 2);
}

TEST(SliceMatrixTest, RefusesWhatIsOutside) {
  const std::vector<float> data(3 * 4 * 2);
  const TensorView t = make(DType::kF32, {3, 4, 2}, data.data(), data.size() * 4);
  struct {
    int64_t i, row0, rows, cols;
  } const cases[] = {{-1, 0, 4, 2}, {3, 0, 4, 2},         {0, -1, 2, 2},       {0, 0, 5, 2},
                     {0, 4, 1, 2},  {0, 1, 4, 2},         {0, 0, 4, 1},        {0, 0, -1, 2},
                     {0, 5, 0, 2},  {0, INT64_MAX, 1, 2}, {0, 1, INT64_MAX, 2}};
  for (const auto& c : cases) {
    const auto m = slice_matrix(t, c.i, c.row0, c.rows, c.cols, Precision::kF32);
    EXPECT_EQ(m.status().code(), Code::kDataCorrupt);
    EXPECT_THAT(m.status().message(), HasSubstr("[3, 4, 2]"));
  }
}

TEST(ToF32Test, WidensVectors) {
  const auto f32 = to_f32(make(DType::kF32, {6}, kF32, sizeof(kF32), 2), 6);
  ASSERT_TRUE(f32.ok());
  EXPECT_EQ(*f32, (std::vector<float>(std::begin(kF32), std::end(kF32))));
  const auto f16 = to_f32(make(DType::kF16, {6}, kF16, sizeof(kF16)), -1);
  ASSERT_TRUE(f16.ok());
  EXPECT_EQ((*f16)[1], -2.5f);
  const auto bf16 = to_f32(make(DType::kBF16, {6}, kBF16, sizeof(kBF16)), 6);
  ASSERT_TRUE(bf16.ok());
  EXPECT_EQ((*bf16)[2], 1.0078125f);
  EXPECT_EQ(to_f32(make(DType::kF32, {6}, kF32, sizeof(kF32)), 5).status().code(),
            Code::kDataCorrupt);
  EXPECT_EQ(to_f32(make(DType::kF32, {2, 3}, kF32, sizeof(kF32)), 6).status().code(),
            Code::kDataCorrupt);
  EXPECT_EQ(to_f32(make(DType::kI32, {6}, kF32, sizeof(kF32)), 6).status().code(),
            Code::kUnimplemented);
}

}  // namespace
}  // namespace chimera
