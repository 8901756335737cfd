// The factors of DoRA against their definition in double, over weights in every kind of format.
#include "experts/lora/magnitude.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "compute/tensor/pack.h"

namespace chimera {
namespace {

constexpr int64_t kOutputs = 24, kInputs = 64, kRank = 5;
constexpr double kScale = 0.75;

class OneWeight final : public BaseWeights {
 public:
  explicit OneWeight(Matrix weight) : weight_(std::move(weight)) {}
  Result<std::shared_ptr<const void>> hold(const AdapterTarget&) const override {
    return std::shared_ptr<const void>();
  }
  bool read_row(const AdapterTarget&, int64_t row, float* out) const override {
    if (weight_.rows == 0) return false;
    widen_row(weight_, row, out);
    return true;
  }

 private:
  const Matrix weight_;
};

class Magnitudes : public ::testing::Test {
 protected:
  std::vector<float> random(int64_t n) {
    std::normal_distribution<float> normal;
    std::vector<float> out(static_cast<size_t>(n));
    for (float& value : out) value = normal(rng_);
    return out;
  }
  static TensorView view(const std::string& name, std::vector<int64_t> shape,
                         const std::vector<float>& values) {
    return {name, DType::kF32, std::move(shape), std::as_bytes(std::span(values)), nullptr};
  }
  Matrix weight() const { return {w_.data(), WeightFormat::kF32, kOutputs, kInputs, nullptr}; }
  StoredChange change() const {
    StoredChange out{{.outputs = kOutputs, .inputs = kInputs},
                     view("a", {kRank, kInputs}, a_),
                     view("b", {kOutputs, kRank}, b_),
                     kScale};
    out.magnitude = view("part.lora_magnitude_vector", {kOutputs}, m_);
    return out;
  }

  /// m / ||W + s B A|| of row n, with the numbers that `weight` stands for.
  double expected(const Matrix& weight, int64_t n) const {
    std::vector<float> row(kInputs);
    widen_row(weight, n, row.data());
    double squares = 0.0;
    for (int64_t i = 0; i < kInputs; ++i) {
      double value = row[static_cast<size_t>(i)];
      for (int64_t k = 0; k < kRank; ++k)
        value += kScale * static_cast<double>(b_[static_cast<size_t>(n * kRank + k)]) *
                 a_[static_cast<size_t>(k * kInputs + i)];
      squares += value * value;
    }
    return m_[static_cast<size_t>(n)] / std::sqrt(squares);
  }

  std::mt19937 rng_{7};
  std::vector<float> w_ = random(kOutputs * kInputs), a_ = random(kRank * kInputs),
                     b_ = random(kOutputs * kRank), m_ = random(kOutputs);
};

TEST_F(Magnitudes, AreDividedByTheLengthsOfTheChangedRows) {
  std::vector<Matrix> formats{weight()};
  for (const WeightFormat format : {WeightFormat::kQ8, WeightFormat::kQ4}) {
    Result<Matrix> packed = pack_matrix(weight(), format);
    ASSERT_TRUE(packed.ok());
    formats.push_back(std::move(*packed));
  }
  for (const Matrix& format : formats) {
    const auto found = output_factors(change(), OneWeight(format));
    ASSERT_TRUE(found.ok()) << found.status().to_string();
    ASSERT_EQ((*found)->size(), static_cast<size_t>(kOutputs));
    for (int64_t n = 0; n < kOutputs; ++n) {
      // Each number of a row is rounded once per rank, to 2^-24 of what it is then; the length is
      // off by no more of itself, but for what cancels: some ranks' worth.
      const double wanted = expected(format, n);
      EXPECT_NEAR((**found)[static_cast<size_t>(n)], wanted,
                  16 * kRank * 0x1p-24 * std::abs(wanted))
          << n;
    }
  }
}

TEST_F(Magnitudes, ARowOfZerosHasNoLength) {
  std::fill(w_.begin() + 3 * kInputs, w_.begin() + 4 * kInputs, 0.0f);
  std::fill(b_.begin() + 3 * kRank, b_.begin() + 4 * kRank, 0.0f);
  const auto refused = output_factors(change(), OneWeight(weight()));
  EXPECT_EQ(refused.status().code(), Code::kFailedPrecondition);
  EXPECT_NE(refused.status().message().find(": row 3 of"), std::string::npos);
}

TEST_F(Magnitudes, WeightsThatAreNotInMemoryHaveNone) {
  EXPECT_EQ(output_factors(change(), OneWeight({})).status().code(), Code::kFailedPrecondition);
}

}  // namespace
}  // namespace chimera
