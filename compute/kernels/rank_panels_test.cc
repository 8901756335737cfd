// Expansion of low-rank changes: every instruction set against a loop over the definition.
#include "compute/kernels/rank_panels.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "compute/kernels/testing.h"

namespace chimera {
namespace {

struct Case {
  int64_t rows, ranks, outputs;
};

class RankPanels : public RandomOperands {
 protected:
  template <class T>
  void check(const Case& c, WeightFormat format, const std::vector<T>& b, const auto& value);
};

template <class T>
void RankPanels::check(const Case& c, WeightFormat format, const std::vector<T>& b,
                       const auto& value) {
  const int64_t ldy = c.outputs + 3;
  const std::vector<float> low = normal(c.rows * c.ranks);
  const std::vector<float> y = normal(c.rows * ldy);
  std::vector<float> expected = y;
  for (int64_t r = 0; r < c.rows; ++r) {
    for (int64_t n = 0; n < c.outputs; ++n) {
      float& sum = expected[static_cast<size_t>(r * ldy + n)];
      for (int64_t k = 0; k < c.ranks; ++k)
        sum = std::fma(low[static_cast<size_t>(r * c.ranks + k)],
                       value(b[static_cast<size_t>(n * c.ranks + k)]), sum);
    }
  }
  std::vector<T> panels(b.size());
  to_rank_panels(b.data(), c.ranks, 1, c.outputs, c.ranks, panels.data());
  const Matrix matrix{panels.data(), format, c.ranks, c.outputs, nullptr};
  for (const Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512}) {
    if (!isa_supported(isa)) continue;
    const std::string label = std::string(kernels_for(isa).name) + ", rows " +
                              std::to_string(c.rows) + ", ranks " + std::to_string(c.ranks) +
                              ", outputs " + std::to_string(c.outputs);
    std::vector<float> whole = y;
    expand_ranks(isa)(low.data(), c.rows, matrix, 0, c.outputs, whole.data(), ldy);
    EXPECT_EQ(whole, expected) << label;
    std::vector<float> shares = y;
    for (int64_t n = 0; n < c.outputs; n += kRankPanel) {
      expand_ranks(isa)(low.data(), c.rows, matrix, n, std::min(n + kRankPanel, c.outputs),
                        shares.data(), ldy);
    }
    EXPECT_EQ(shares, expected) << label << ", in shares";
  }
}

TEST_F(RankPanels, AddOneRankAfterAnotherWhateverTheInstructionSet) {
  for (const int64_t rows : {1, 2, 5}) {
    for (const int64_t ranks : {1, 4, 19}) {
      for (const int64_t outputs : {1, 16, 40, 112, 256}) {
        const std::vector<float> b = normal(outputs * ranks);
        check<float>({rows, ranks, outputs}, WeightFormat::kF32, b, [](float v) { return v; });
        std::vector<uint16_t> narrow;
        for (const float v : b) narrow.push_back(f32_to_bf16(v));
        check<uint16_t>({rows, ranks, outputs}, WeightFormat::kBF16, narrow, bf16_to_f32);
        for (size_t i = 0; i < b.size(); ++i) narrow[i] = f32_to_f16(b[i]);
        check<uint16_t>({rows, ranks, outputs}, WeightFormat::kF16, narrow, f16_to_f32);
      }
    }
  }
}

TEST_F(RankPanels, TakeBFromEitherSide) {
  const int64_t outputs = 37;
  const int64_t ranks = 5;
  const std::vector<float> b = normal(outputs * ranks);
  std::vector<float> turned(b.size());
  for (int64_t n = 0; n < outputs; ++n) {
    for (int64_t k = 0; k < ranks; ++k)
      turned[static_cast<size_t>(k * outputs + n)] = b[static_cast<size_t>(n * ranks + k)];
  }
  std::vector<float> one(b.size());
  std::vector<float> other(b.size());
  to_rank_panels(b.data(), ranks, 1, outputs, ranks, one.data());
  to_rank_panels(turned.data(), 1, outputs, outputs, ranks, other.data());
  EXPECT_EQ(one, other);
  EXPECT_EQ(one[0], b[0]);
  EXPECT_EQ(one[1], b[static_cast<size_t>(ranks)]) << "outputs of a panel lie together";
}

}  // namespace
}  // namespace chimera
