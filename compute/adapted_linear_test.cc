// Products with what adapters add to them: the bits of the product and the additions one after the
// other, however the work is shared.
#include "compute/adapted_linear.h"

#include <algorithm>
#include <deque>
#include <memory>
#include <vector>

#include "compute/kernels/rank_panels.h"
#include "compute/kernels/testing.h"

namespace chimera {
namespace {

constexpr int64_t kRows = 7;
constexpr int64_t kInputs = 320;

class AdaptedLinear : public RandomOperands {
 protected:
  Matrix matrix(int64_t rows, int64_t cols) {
    auto values = std::make_shared<std::vector<float>>(normal(rows * cols, 0.2f));
    return {values->data(), WeightFormat::kF32, rows, cols, values};
  }
  Matrix narrow(const Matrix& wide) {
    auto values = std::make_shared<std::vector<uint16_t>>();
    const auto* from = static_cast<const float*>(wide.data);
    for (int64_t i = 0; i < wide.rows * wide.cols; ++i) values->push_back(f32_to_bf16(from[i]));
    return {values->data(), WeightFormat::kBF16, wide.rows, wide.cols, values};
  }
  /// A change of rows [first, first + rows) of a product.
  void change(size_t product, int64_t first, int64_t rows, int64_t rank, bool bf16) {
    const Matrix a = matrix(rank, kInputs);
    const Matrix b = matrix(rank, weights_[product].rows);  // as panels: any numbers will do
    changes_.push_back({bf16 ? narrow(a) : a, bf16 ? narrow(b) : b, 0.5f});
    places_.push_back({product, first, rows});
  }
  /// By adapted_linear, or by linear and add_low_rank after it.
  std::vector<std::vector<float>> run(int threads, bool together) {
    ThreadPool pool(threads);
    FloatBuffer scratch;
    std::vector<std::vector<float>> y;
    for (const Matrix& w : weights_) y.emplace_back(static_cast<size_t>(kRows * w.rows), -1.0f);
    std::vector<LinearOp> products;
    for (size_t i = 0; i < weights_.size(); ++i)
      products.push_back({x_.data(), &weights_[i], y[i].data()});
    std::vector<LowRankOp> ops;
    for (size_t i = 0; i < changes_.size(); ++i) {
      const Place& at = places_[i];
      ops.push_back({&changes_[i], x_.data() + at.first * kInputs,
                     y[at.product].data() + at.first * weights_[at.product].rows, at.rows});
    }
    const Kernels& kernels = best_kernels();
    if (together) {
      adapted_linear(kernels, pool, kRows, products, ops, scratch);
    } else {
      linear(kernels, pool, kRows, products);
      for (LowRankOp& op : ops) add_low_rank(kernels, pool, {&op, 1}, scratch);
    }
    return y;
  }

  struct Place {
    size_t product;
    int64_t first, rows;
  };
  std::vector<float> x_ = normal(kRows * kInputs);
  std::deque<Matrix> weights_;
  std::deque<LowRank> changes_;
  std::vector<Place> places_;
};

TEST_F(AdaptedLinear, HasTheBitsOfOneAfterAnotherOnAnyNumberOfThreads) {
  for (const int64_t outputs : {256, 96, 40}) weights_.push_back(matrix(outputs, kInputs));
  const std::vector<std::vector<float>> plain = run(1, /*together=*/true);
  for (size_t product = 0; product < weights_.size(); ++product) {
    change(product, 0, 1, 16, /*bf16=*/true);
    change(product, 1, 4, 19, /*bf16=*/false);
  }
  change(0, 0, 3, 4, /*bf16=*/false);  // of rows that another changes, too
  const std::vector<std::vector<float>> expected = run(1, /*together=*/false);
  EXPECT_NE(expected, plain);
  for (const int threads : {1, 2, 3})
    EXPECT_EQ(run(threads, /*together=*/true), expected) << threads << " threads";
  for (size_t product = 0; product < weights_.size(); ++product) {
    const auto same = static_cast<std::ptrdiff_t>(5 * weights_[product].rows);
    EXPECT_TRUE(std::equal(expected[product].begin() + same, expected[product].end(),
                           plain[product].begin() + same))
        << "rows that nothing changes";
  }
}

TEST_F(AdaptedLinear, SmallOnesRunInPlaceToTheSameBits) {
  weights_.push_back(matrix(9, kInputs));
  change(0, 2, 2, 3, /*bf16=*/true);
  EXPECT_EQ(run(2, /*together=*/true), run(1, /*together=*/false));
}

}  // namespace
}  // namespace chimera
