// Golden checkpoints through the real router, whole and composed again after a split.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "experts/cut.h"
#include "router/golden_testing.h"

namespace chimera {
namespace {

using namespace chimera::testing;

constexpr int kPrompts = 6;

class GoldenModel : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    dir_ = golden_dir() + "/" + GetParam();
    if (!std::filesystem::exists(dir_)) GTEST_SKIP() << "no golden checkpoint in " << dir_;
  }
  std::string dir_;
};

size_t count_different_bits(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size() || a.empty()) return SIZE_MAX;
  size_t different = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    different += std::bit_cast<uint32_t>(a[i]) != std::bit_cast<uint32_t>(b[i]) ? 1 : 0;
  }
  return different;
}

TEST_P(GoldenModel, LogitsAndRoutingMatchTheReference) {
  const auto model = LoadedModel::load(dir_, Precision::kF32);
  ASSERT_TRUE(model.ok()) << model.status().to_string();
  const auto golden = SafetensorsFile::open(dir_ + "/golden.safetensors", Residency::kCopied);
  ASSERT_TRUE(golden.ok());
  const auto table = model->compose({});
  ASSERT_TRUE(table.ok()) << table.status().to_string();
  for (int prompt = 0; prompt < kPrompts; ++prompt) {
    const std::vector<int32_t> tokens = golden_tokens(*golden, prompt);
    ASSERT_FALSE(tokens.empty());
    RoutingTrace trace;
    const auto got = model->logits(*table, 1, tokens, &trace);
    const std::string prefix = "prompt." + std::to_string(prompt) + ".";
    const auto want = golden_values<float>(*golden, prefix + "logits");
    ASSERT_EQ(got.size(), want.size());
    float worst = 0.0f;
    for (size_t i = 0; i < got.size(); ++i) worst = std::max(worst, std::abs(got[i] - want[i]));
    EXPECT_LE(worst, 1e-3f) << "prompt " << prompt;

    const auto n = tokens.size() * static_cast<size_t>(trace.k);
    for (int64_t layer = 0; layer < model->config.num_layers; ++layer) {
      const std::string router = prefix + "router." + std::to_string(layer) + ".";
      const auto ids = golden_values<int64_t>(*golden, router + "ids");
      const auto weights = golden_values<float>(*golden, router + "weights");
      ASSERT_EQ(ids.size(), n);
      for (size_t i = 0; i < n; ++i) {
        const size_t at = static_cast<size_t>(layer) * n + i;
        ASSERT_EQ(trace.ids[at], ids[i]) << router << " choice " << i;
        ASSERT_NEAR(trace.weights[at], weights[i], 1e-4) << router << " choice " << i;
      }
    }
  }
}

// A checkpoint stored as BF16 loses nothing. One stored as F32 is rounded; where a router's margin
// is below that noise (golden_format in manifest.json) single rows go to another expert.
TEST_P(GoldenModel, Bf16StaysWithinItsTolerance) {
  const auto model = LoadedModel::load(dir_, Precision::kBF16);
  ASSERT_TRUE(model.ok()) << model.status().to_string();
  const auto golden = SafetensorsFile::open(dir_ + "/golden.safetensors", Residency::kCopied);
  ASSERT_TRUE(golden.ok());
  const auto table = model->compose({});
  ASSERT_TRUE(table.ok());
  const auto vocab = static_cast<size_t>(model->config.vocab_size);
  size_t rows = 0;
  size_t outside = 0;
  for (int prompt = 0; prompt < kPrompts; ++prompt) {
    const auto got = model->logits(*table, 1, golden_tokens(*golden, prompt));
    const auto want = golden_values<float>(*golden, "prompt." + std::to_string(prompt) + ".logits");
    ASSERT_EQ(got.size(), want.size());
    float max = 0.0f;
    for (const float w : want) max = std::max(max, std::abs(w));
    for (size_t begin = 0; begin < want.size(); begin += vocab) {
      float worst = 0.0f;
      for (size_t i = begin; i < begin + vocab; ++i) {
        worst = std::max(worst, std::abs(got[i] - want[i]));
      }
      ++rows;
      outside += worst > 2e-2f * max ? 1 : 0;
    }
  }
  const bool rounded = dir_.ends_with("_f32");
  EXPECT_LE(outside, rounded ? rows / 50 : 0) << "of " << rows << " rows";
}

struct Cut {
  const char* name;
  Attach attach;
  std::vector<SplitModule> modules;
};

/// Ways to cut a checkpoint of `e` experts and three layers.
std::vector<Cut> cuts(int64_t e) {
  return {
      {"tail slots", Attach::kAppend, {{"tail", {{-1, {e - 2, e - 1}}}}}},
      {"middle slots in two modules",
       Attach::kAppend,
       {{"one", {{-1, {1}}}}, {"two", {{-1, {3, 4}}}}}},
      {"first slots", Attach::kAppend, {{"head", {{-1, {0, 1}}}}}},
      {"other slots in every layer",
       Attach::kAppend,
       {{"mixed", {{0, {0, 3}}, {1, {1, 2}}, {2, {e - 1, 0}}}}}},
      {"all but one",
       Attach::kAppend,
       {{"rest",
         {{-1,
           [&] {
             std::vector<int64_t> all;
             for (int64_t i = 1; i < e; ++i) all.push_back(i);
             return all;
           }()}}}}},
      {"replace", Attach::kReplace, {{"swap", {{0, {2}}, {2, {0, 5}}}}, {"more", {{-1, {4}}}}}},
  };
}

// Design invariant 1: split, compose, and the logits are those of the whole, bit for bit.
TEST_P(GoldenModel, SplitAndComposedAgainIsBitwiseTheWhole) {
  const auto whole = LoadedModel::load(dir_, Precision::kF32);
  ASSERT_TRUE(whole.ok()) << whole.status().to_string();
  const auto golden = SafetensorsFile::open(dir_ + "/golden.safetensors", Residency::kCopied);
  ASSERT_TRUE(golden.ok());
  const auto table = whole->compose({});
  ASSERT_TRUE(table.ok());
  std::vector<std::vector<int32_t>> prompts;
  std::vector<std::vector<float>> want;
  for (const int prompt : {0, 3, 5}) {
    prompts.push_back(golden_tokens(*golden, prompt));
    want.push_back(whole->logits(*table, 1, prompts.back()));
  }
  for (const Cut& cut : cuts(whole->config.num_experts)) {
    SCOPED_TRACE(cut.name);
    TempDir out;
    SplitOptions options;
    options.checkpoint_dir = dir_;
    options.backbone_out = out / "backbone";
    options.modules_out = out / "modules";
    options.modules = cut.modules;
    options.attach = cut.attach;
    const auto report = split_checkpoint(options);
    ASSERT_TRUE(report.ok()) << report.status().to_string();
    const auto backbone = LoadedModel::load(options.backbone_out, Precision::kF32);
    ASSERT_TRUE(backbone.ok()) << backbone.status().to_string();
    EXPECT_EQ(backbone->fingerprint, report->fingerprint);
    const auto composed = backbone->compose(report->module_dirs, whole->config.num_experts_per_tok);
    ASSERT_TRUE(composed.ok()) << composed.status().to_string();
    for (size_t p = 0; p < prompts.size(); ++p) {
      const auto got = backbone->logits(*composed, (*composed)->all(), prompts[p]);
      EXPECT_EQ(count_different_bits(got, want[p]), 0u) << "prompt " << p;
    }
    // The modules matter: without them the logits are others (append), or the same (replace).
    const auto without = backbone->logits(*composed, 1, prompts[2]);
    const bool changed = count_different_bits(without, want[2]) > 0;
    EXPECT_EQ(changed, cut.attach == Attach::kAppend);
  }
}

// Design invariant 2 through the whole model.
TEST_P(GoldenModel, MaskedModuleIsBitwiseTheSameAsNeverLoaded) {
  TempDir out;
  SplitOptions options;
  options.checkpoint_dir = dir_;
  options.backbone_out = out / "backbone";
  options.modules_out = out / "modules";
  options.modules = {{"one", {{-1, {1}}}}, {"two", {{-1, {3}}}}};
  const auto report = split_checkpoint(options);
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  const auto model = LoadedModel::load(options.backbone_out, Precision::kF32);
  ASSERT_TRUE(model.ok());
  const auto golden = SafetensorsFile::open(dir_ + "/golden.safetensors", Residency::kCopied);
  const auto tokens = golden_tokens(*golden, 4);
  const auto both = model->compose(report->module_dirs);
  const auto one = model->compose({report->module_dirs[0]});
  const auto two = model->compose({report->module_dirs[1]});
  ASSERT_TRUE(both.ok() && one.ok() && two.ok());
  const auto only_one = model->logits(*both, 0b011, tokens);
  EXPECT_EQ(count_different_bits(only_one, model->logits(*one, 0b11, tokens)), 0u);
  const auto only_two = model->logits(*both, 0b101, tokens);
  EXPECT_EQ(count_different_bits(only_two, model->logits(*two, 0b11, tokens)), 0u);
  EXPECT_GT(count_different_bits(only_one, only_two), 0u);
}

INSTANTIATE_TEST_SUITE_P(All, GoldenModel,
                         ::testing::Values("flex_olmo_f32", "flex_olmo_bf16", "olmoe_f32",
                                           "olmoe_bf16", "mixtral_f32", "mixtral_bf16"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace chimera
