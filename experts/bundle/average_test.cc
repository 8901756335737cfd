// Averages against their definition, number by number.
#include "experts/bundle/average.h"

#include <gtest/gtest.h>

#include <map>

#include "backbone/checkpoint/check.h"
#include "experts/bundle/testing.h"

namespace chimera {
namespace {

using namespace chimera::testing;

struct Made {
  double weight;
  std::vector<TensorView> tensors;
  std::vector<SharedChange> changes;
};

/// The numbers of tensor `name` for one bundle, as the header defines them.
std::vector<double> term(const Made& bundle, const TensorView& base) {
  std::vector<double> out = values_of(base);
  std::vector<double> a, b;
  for (const TensorView& tensor : bundle.tensors) {
    if (tensor.name == base.name) return values_of(tensor);
    if (tensor.name == base.name + ".delta_a") a = values_of(tensor);
    if (tensor.name == base.name + ".delta_b") b = values_of(tensor);
  }
  if (a.empty()) return out;
  const auto cols = static_cast<size_t>(base.shape[1]);
  const size_t rank = a.size() / cols;
  for (size_t i = 0; i < out.size(); ++i) {
    double delta = 0.0;
    for (size_t k = 0; k < rank; ++k) delta += b[i / cols * rank + k] * a[k * cols + i % cols];
    out[i] += delta;
  }
  return out;
}

class AverageOf : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const std::string dir = std::string(CHIMERA_SOURCE_DIR "/tests/golden/families/") + GetParam();
    auto opened = Checkpoint::open(dir, Residency::kMapped);
    ASSERT_TRUE(opened.ok()) << opened.status().to_string();
    checkpoint_ = std::move(*opened);
    auto config = read_model_config(*checkpoint_);
    ASSERT_TRUE(config.ok()) << config.status().to_string();
    config_ = std::move(*config);
  }
  /// With changes to about one tensor of `every`.
  Made made(double weight, RandomChanges wanted, size_t every) const {
    wanted.of = [every, seed = wanted.seed](const NeededTensor& t) {
      size_t sum = seed;
      for (const char c : t.name) sum += static_cast<unsigned char>(c);
      return sum % every == 0;
    };
    Made out{weight, random_changes(*checkpoint_, config_, wanted), {}};
    std::map<std::string, const TensorView*> by_name;
    for (const TensorView& tensor : out.tensors) by_name[tensor.name] = &tensor;
    for (const NeededTensor& needed : all_needed(config_)) {
      SharedChange change{needed, {}, {}, {}};
      const auto find = [&](const std::string& name) {
        const auto at = by_name.find(name);
        return at == by_name.end() ? std::optional<TensorView>() : *at->second;
      };
      change.full = find(needed.name);
      change.a = find(needed.name + ".delta_a");
      change.b = find(needed.name + ".delta_b");
      if (change.full || change.a) out.changes.push_back(std::move(change));
    }
    return out;
  }

  std::optional<Checkpoint> checkpoint_;
  ModelConfig config_;
};

TEST_P(AverageOf, IsTheWeightedSumRoundedOnce) {
  const std::vector<Made> all{made(1.0, {1, {}, 0, DType::kF32}, 2),
                              made(2.5, {2, {}, 3, DType::kBF16}, 2),
                              made(0.3, {3, {}, 0, DType::kF16}, 3)};
  for (size_t n = 1; n <= all.size(); ++n) {
    SCOPED_TRACE(::testing::Message() << n << " bundles");
    double total = 0.0;
    std::vector<WeightedChanges> bundles;
    for (size_t i = 0; i < n; ++i) {
      total += all[i].weight;
      bundles.push_back({all[i].weight, all[i].changes});
    }
    ThreadPool pool(static_cast<int>(n));
    const auto found = averaged_tensors(*checkpoint_, config_, bundles, pool);
    ASSERT_TRUE(found.ok()) << found.status().to_string();
    size_t at = 0;
    for (const NeededTensor& needed : all_needed(config_)) {
      bool changed = false;
      for (size_t i = 0; i < n; ++i) {
        for (const SharedChange& change : all[i].changes)
          changed = changed || change.needed.name == needed.name;
      }
      if (!changed) continue;
      ASSERT_LT(at, found->size());
      const TensorView& is = (*found)[at++];
      const TensorView& base = *checkpoint_->find(needed.name);
      ASSERT_EQ(is.name, needed.name);
      ASSERT_EQ(is.dtype, base.dtype);
      std::vector<double> sum = term(all[0], base);
      for (double& v : sum) v *= all[0].weight / total;
      for (size_t i = 1; i < n; ++i) {
        const std::vector<double> next = term(all[i], base);
        for (size_t e = 0; e < sum.size(); ++e) sum[e] += all[i].weight / total * next[e];
      }
      const TensorView wanted = tensor_of(needed.name, base.dtype, needed.shape, sum);
      ASSERT_EQ(is.bytes.size(), wanted.bytes.size());
      EXPECT_EQ(std::memcmp(is.bytes.data(), wanted.bytes.data(), is.bytes.size()), 0)
          << needed.name;
    }
    EXPECT_EQ(at, found->size());
  }
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, AverageOf,
                         ::testing::Values("deepseek_v2_lite", "gpt_oss", "llama_biases"));

}  // namespace
}  // namespace chimera
