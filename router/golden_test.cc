// Golden checkpoints through the real router, whole and composed again after a split.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <fstream>
#include <random>

#include "base/io/digest.h"
#include "experts/module/base_tensors.h"
#include "experts/offline/cut.h"
#include "router/golden_testing.h"

namespace chimera {
namespace {

using namespace chimera::testing;

class GoldenModel : public ::testing::TestWithParam<const char*> {
 protected:
  /// Of the shared set, or of the project's own.
  void SetUp() override {
    dir_ = golden_dir() + "/" + GetParam();
    if (!std::filesystem::exists(dir_)) dir_ = own_golden_dir() + "/" + GetParam();
    if (!std::filesystem::exists(dir_)) GTEST_SKIP() << "no golden checkpoint in " << dir_;
  }
  std::string dir_;
};

bool is_dense(const std::string& dir) {
  const auto checkpoint = Checkpoint::open(dir, Residency::kMapped);
  return checkpoint.ok() && parse_model_config(checkpoint->config_json(), dir)->dense_base;
}

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
  for (int prompt = 0; !golden_tokens(*golden, prompt).empty(); ++prompt) {
    const std::vector<int32_t> tokens = golden_tokens(*golden, prompt);
    RoutingTrace trace;
    const auto got = model->logits(*table, ModuleMask{0}, tokens, &trace);
    const std::string prefix = "prompt." + std::to_string(prompt) + ".";
    const auto want = golden_values<float>(*golden, prefix + "logits");
    ASSERT_EQ(got.size(), want.size());
    float worst = 0.0f;
    for (size_t i = 0; i < got.size(); ++i) worst = std::max(worst, std::abs(got[i] - want[i]));
    EXPECT_LE(worst, 1e-3f) << "prompt " << prompt;

    const auto n = tokens.size() * static_cast<size_t>(trace.k);
    if (model->config.dense_base) continue;
    for (const int64_t layer : moe_layers(model->config)) {
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
  for (int prompt = 0; !golden_tokens(*golden, prompt).empty(); ++prompt) {
    const auto got = model->logits(*table, ModuleMask{0}, golden_tokens(*golden, prompt));
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

using Slots = std::map<int64_t, std::vector<int64_t>>;

/// Ways to cut a checkpoint.
std::vector<Cut> cuts(const ModelConfig& config) {
  if (config.dense_base) return {{"the dense one", Attach::kReplace, {{"swap", {{-1, {0}}}}}}};
  const int64_t e = config.num_experts;
  const std::vector<int64_t> layers = moe_layers(config);
  Slots mixed;
  for (size_t i = 0; i < layers.size(); ++i) {
    const auto first = static_cast<int64_t>(i) % e;
    mixed[layers[i]] = {(first + 3) % e, first};
  }
  std::vector<int64_t> rest;
  for (int64_t i = 1; i < e; ++i) rest.push_back(i);
  const int64_t last_layer = layers.back();
  const Slots swap = last_layer == layers[0] ? Slots{{last_layer, {0, e - 1}}}
                                             : Slots{{layers[0], {2}}, {last_layer, {0, e - 1}}};
  return {
      {"tail slots", Attach::kAppend, {{"tail", {{-1, {e - 2, e - 1}}}}}},
      {"slots in two modules", Attach::kAppend, {{"one", {{-1, {1}}}}, {"two", {{-1, {0, 3}}}}}},
      {"other slots in every layer", Attach::kAppend, {{"mixed", mixed}}},
      {"all but one", Attach::kAppend, {{"rest", {{-1, rest}}}}},
      {"replace", Attach::kReplace, {{"swap", swap}, {"more", {{-1, {1}}}}}},
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
  for (const int prompt : {0, 2, 3}) {
    prompts.push_back(golden_tokens(*golden, prompt));
    want.push_back(whole->logits(*table, ModuleMask{0}, prompts.back()));
  }
  for (const Cut& cut : cuts(whole->config)) {
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
    const auto without = backbone->logits(*composed, ModuleMask{0}, prompts[2]);
    const bool changed = count_different_bits(without, want[2]) > 0;
    EXPECT_EQ(changed, cut.attach == Attach::kAppend);
  }
}

// Design invariant 2 through the whole model.
TEST_P(GoldenModel, MaskedModuleIsBitwiseTheSameAsNeverLoaded) {
  if (is_dense(dir_)) GTEST_SKIP() << "a dense family has no expert to take out";
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
  const auto tokens = golden_tokens(*golden, 3);
  const auto both = model->compose(report->module_dirs);
  const auto one = model->compose({report->module_dirs[0]});
  const auto two = model->compose({report->module_dirs[1]});
  ASSERT_TRUE(both.ok() && one.ok() && two.ok());
  const auto only_one = model->logits(*both, ModuleMask{0, 1}, tokens);
  EXPECT_EQ(count_different_bits(only_one, model->logits(*one, ModuleMask{0, 1}, tokens)), 0u);
  const auto only_two = model->logits(*both, ModuleMask{0, 2}, tokens);
  EXPECT_EQ(count_different_bits(only_two, model->logits(*two, ModuleMask{0, 1}, tokens)), 0u);
  EXPECT_GT(count_different_bits(only_one, only_two), 0u);
}

/// A module directory with one random expert per layer, gate row included.
void write_appended(const std::string& dir, const LoadedModel& model) {
  std::mt19937 rng(5);
  std::normal_distribution<float> normal(0.0f, 0.2f);
  std::vector<TensorView> tensors;
  const auto add = [&](const std::string& name, std::vector<int64_t> shape) {
    TensorView view{name, DType::kF32, std::move(shape), {}, nullptr};
    auto values = std::make_shared<std::vector<float>>(static_cast<size_t>(view.elements()));
    for (float& v : *values) v = normal(rng);
    view.bytes = std::as_bytes(std::span(*values));
    view.owner = values;
    tensors.push_back(std::move(view));
  };
  const int64_t hidden = model.config.hidden_size;
  for (int64_t layer = 0; layer < model.config.num_layers; ++layer) {
    const std::string prefix = "layers." + std::to_string(layer) + ".";
    add(prefix + "gate.weight", {1, hidden});
    add(prefix + "experts.0.gate_proj.weight", {24, hidden});
    add(prefix + "experts.0.up_proj.weight", {24, hidden});
    add(prefix + "experts.0.down_proj.weight", {hidden, 24});
  }
  std::filesystem::create_directory(dir);
  ASSERT_TRUE(write_safetensors(dir + "/weights.safetensors", tensors, {}).ok());
  Manifest manifest;
  manifest.name = "extra";
  manifest.version = "1.0.0";
  manifest.attach = Attach::kAppend;
  manifest.backbone_fingerprint = model.fingerprint;
  manifest.hidden_size = hidden;
  manifest.files.push_back({"weights.safetensors", *sha256_of_file(dir + "/weights.safetensors")});
  std::ofstream(dir + "/module.yaml") << manifest_yaml(manifest);
}

// A dense family takes appended experts beside its feed-forward; masked, they leave no trace.
TEST_P(GoldenModel, TakesAnAppendedExpertOfAnotherWidth) {
  const auto model = LoadedModel::load(dir_, Precision::kF32);
  ASSERT_TRUE(model.ok()) << model.status().to_string();
  if (!model->config.dense_base) GTEST_SKIP() << "the families with experts are cut above";
  TempDir out;
  write_appended(out / "extra", *model);
  const auto golden = SafetensorsFile::open(dir_ + "/golden.safetensors", Residency::kCopied);
  const auto tokens = golden_tokens(*golden, 3);
  const auto alone = model->compose({});
  const auto both = model->compose({out / "extra"});
  ASSERT_TRUE(alone.ok()) << alone.status().to_string();
  ASSERT_TRUE(both.ok()) << both.status().to_string();
  const auto without = model->logits(*alone, ModuleMask{0}, tokens);
  EXPECT_EQ(count_different_bits(model->logits(*both, ModuleMask{0}, tokens), without), 0u);
  RoutingTrace trace;
  EXPECT_GT(count_different_bits(model->logits(*both, ModuleMask{0, 1}, tokens, &trace), without),
            0u);
  EXPECT_EQ(trace.k, 2);
  for (size_t i = 0; i < trace.ids.size(); i += 2) {  // both take part, weights sum to 1
    EXPECT_EQ(trace.ids[i] + trace.ids[i + 1], 1);
    EXPECT_NEAR(trace.weights[i] + trace.weights[i + 1], 1.0f, 1e-6f);
  }
}

/// Experts whose checkpoint holds them quantised, under a packed precision: they lie in a format of
/// the kernels, and the model still says what it said.
void expect_packed_experts(const std::string& dir, WeightFormat format) {
  const auto model = LoadedModel::load(dir, Precision::kQ8);
  ASSERT_TRUE(model.ok()) << model.status().to_string();
  const int64_t hidden = model->config.hidden_size, width = model->config.intermediate_size;
  const auto weights = static_cast<uint64_t>(2 * weight_bytes(format, width, hidden) +
                                             weight_bytes(format, hidden, width));
  const bool biases = model->config.expert_kind == ExpertKind::kClampedSwiGlu;
  const auto bias_bytes = static_cast<uint64_t>(biases ? 4 * (2 * width + hidden) : 0);
  for (const auto& [layer, part] : model->base->layers) {
    for (const auto& expert : part.experts)
      EXPECT_EQ(expert->resident_bytes(), weights + bias_bytes) << layer;
  }
  const auto golden = SafetensorsFile::open(dir + "/golden.safetensors", Residency::kCopied);
  ASSERT_TRUE(golden.ok());
  const auto table = model->compose({});
  ASSERT_TRUE(table.ok()) << table.status().to_string();
  const auto got = model->logits(*table, ModuleMask{0}, golden_tokens(*golden, 0));
  const auto want = golden_values<float>(*golden, "prompt.0.logits");
  ASSERT_EQ(got.size(), want.size());
  double error = 0, size = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    error += std::pow(double{got[i]} - double{want[i]}, 2);
    size += std::pow(double{want[i]}, 2);
  }
  // Steps of 1 / 127 of the largest of 32 inputs, in a few products after one another.
  EXPECT_LT(std::sqrt(error / size), 0.05);
}

TEST(GoldenQuantised, Mxfp4RunsInItsOwnFormatUnderQ8) {
  expect_packed_experts(own_golden_dir() + "/gpt_oss_mxfp4", WeightFormat::kMXFP4);
}

TEST(GoldenQuantised, Fp8IsPackedUnderQ8) {
  const std::string dir = golden_dir() + "/deepseek_v3_fp8";
  if (!std::filesystem::exists(dir)) GTEST_SKIP() << "no golden checkpoint in " << dir;
  expect_packed_experts(dir, WeightFormat::kQ8);
}

INSTANTIATE_TEST_SUITE_P(
    All, GoldenModel,
    ::testing::Values("flex_olmo_f32", "flex_olmo_bf16", "olmoe_f32", "olmoe_bf16", "mixtral_f32",
                      "mixtral_bf16", "qwen3_moe_f32", "qwen3_moe_bf16", "qwen3_moe_v5_fused_bf16",
                      "deepseek_v3_f32", "deepseek_v3_bf16", "deepseek_v3_fp8", "llama4_text_f32",
                      "llama4_text_bf16", "llama4_composite_bf16", "llama_f32", "qwen3_tied_bf16",
                      "gpt_oss", "gpt_oss_mxfp4", "qwen2_moe", "qwen3_moe_sparse",
                      "deepseek_v2_grouped", "deepseek_v2_lite", "deepseek_v3_direct",
                      "deepseek_v3_grouped", "llama4_two_experts", "llama4_scout", "llama_biases"),
    [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace chimera
