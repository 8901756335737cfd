// Adapters through the real router: rows with several, one and none in one pass, each with the bits
// of its sequence alone; one that is not named is one that was never loaded.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <random>

#include "compute/tensor/convert.h"
#include "compute/tensor/memory.h"
#include "experts/module/base_tensors.h"
#include "router/golden_testing.h"

namespace chimera {
namespace {

using namespace chimera::testing;

const ModuleMask kBackbone{0};

LowRank random_change(std::mt19937& rng, int64_t outputs, int64_t inputs, int64_t rank) {
  const auto matrix = [&](int64_t cols) {
    std::normal_distribution<float> normal(0.0f, 0.3f);
    auto values = std::make_shared<std::vector<float>>(static_cast<size_t>(rank * cols));
    for (float& v : *values) v = normal(rng);
    return Matrix{values->data(), WeightFormat::kF32, rank, cols, values};
  };
  return {matrix(inputs), matrix(outputs), 0.5f};
}

/// As DoRA has them.
std::shared_ptr<const std::vector<float>> random_factors(std::mt19937& rng, int64_t outputs) {
  std::uniform_real_distribution<float> around_one(0.7f, 1.3f);
  auto factors = std::make_shared<std::vector<float>>(static_cast<size_t>(outputs));
  for (float& factor : *factors) factor = around_one(rng);
  return factors;
}

/// Changes every product of the model; with an even seed its factors, too.
std::shared_ptr<Module> random_adapter(const ModelConfig& c, const std::string& name, unsigned seed,
                                       int64_t rank) {
  std::mt19937 rng(seed);
  auto adapter = std::make_shared<Adapter>();
  adapter->backbone.layers.resize(static_cast<size_t>(c.num_layers));
  adapter->experts.resize(static_cast<size_t>(c.num_layers));
  for (int64_t layer = 0; layer < c.num_layers; ++layer) {
    LayerAdapter& part = adapter->backbone.layers[static_cast<size_t>(layer)];
    for (const NeededTensor& t : needed_layer_tensors(c, layer)) {
      if (t.shape.size() != 2) continue;
      if (t.role != TensorRole::kKvB) {
        part.changes.emplace_back(t.role, random_change(rng, t.shape[0], t.shape[1], rank));
        if (seed % 2 == 0) part.changes.back().second.factors = random_factors(rng, t.shape[0]);
        continue;
      }
      for (int64_t h = 0; h < c.num_heads; ++h) {
        part.k_up.push_back(random_change(rng, t.shape[1], c.mla->qk_nope_head_dim, rank));
        part.v_up.push_back(random_change(rng, c.v_head_dim, t.shape[1], rank));
      }
    }
    if (!is_moe_layer(c, layer)) continue;
    // Not of every expert, and not of every projection.
    auto& experts = adapter->experts[static_cast<size_t>(layer)];
    experts.resize(static_cast<size_t>(c.num_experts));
    for (size_t e = 0; e < experts.size(); e += 1 + seed % 2) {
      const int64_t width = c.intermediate_size;
      experts[e].gate = random_change(rng, width, c.hidden_size, rank);
      if (e % 3 != 1) experts[e].up = random_change(rng, width, c.hidden_size, rank);
      if (e % 3 != 2) experts[e].down = random_change(rng, c.hidden_size, width, rank);
      if (seed % 2 == 0) experts[e].gate.factors = random_factors(rng, width);
    }
  }
  auto module = std::make_shared<Module>();
  module->manifest.name = name;
  module->manifest.kind = ModuleKind::kLora;
  module->manifest.digest = name;
  module->adapter = std::move(adapter);
  return module;
}

struct Asked {
  ModuleMask mask;
  std::vector<int32_t> tokens;
};

class Adapters : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    auto model = LoadedModel::load(own_golden_dir() + "/" + GetParam(), Precision::kBF16);
    ASSERT_TRUE(model.ok()) << model.status().to_string();
    model_ = std::move(*model);
    table_ = table(
        {random_adapter(model_.config, "a", 1, 4), random_adapter(model_.config, "b", 2, 19)});
    ASSERT_NE(table_, nullptr);
  }

  std::shared_ptr<const RoutingTable> table(
      std::vector<std::shared_ptr<const Module>> modules) const {
    Composition composition;
    composition.backbone_fingerprint = model_.fingerprint;
    for (const auto& module : modules)
      composition.modules.push_back({module->name(), "1", module->name(), "", true, 0.0f});
    auto made = RoutingTableBuilder(model_.config, model_.base).build(1, composition, modules);
    EXPECT_TRUE(made.ok()) << made.status().to_string();
    return made.ok() ? *made : nullptr;
  }

  std::vector<int32_t> tokens(int n, int from) const {
    std::vector<int32_t> ids;
    for (int i = 0; i < n; ++i)
      ids.push_back((from + 7 * i) % static_cast<int>(model_.config.vocab_size));
    return ids;
  }

  /// Logits of all rows of all sequences in one pass.
  std::vector<float> together(const std::vector<Asked>& asked, int threads) const {
    auto cache =
        KvCache::create(model_.config, {.block_tokens = 16, .blocks = 64, .prefix_cache = false});
    EXPECT_TRUE(cache.ok());
    std::vector<std::shared_ptr<const RouteView>> views;
    std::vector<std::unique_ptr<KvSequence>> kvs;
    std::vector<BatchSegment> segments;
    std::vector<RoutedSegment> routed;
    size_t rows = 0;
    for (const Asked& one : asked) {
      auto view = make_route_view(table_, one.mask, {});
      EXPECT_TRUE(view.ok());
      views.push_back(*view);
      kvs.push_back(std::make_unique<KvSequence>(cache->get()));
      EXPECT_TRUE(kvs.back()->reserve(static_cast<int64_t>(one.tokens.size())).ok());
      segments.push_back({one.tokens, 0, kvs.back().get(), BatchSegment::Logits::kAll,
                          views.back()->backbone_adapters});
      RoutedSegment segment;
      segment.view = views.back().get();
      segment.rows = static_cast<int64_t>(one.tokens.size());
      routed.push_back(segment);
      rows += one.tokens.size();
    }
    ThreadPool pool(threads);
    MoeRouter router(model_.config, best_kernels(), pool);
    Workspace ws;
    router.begin_pass(routed, nullptr);
    const Status status = model_.backbone->forward(segments, router, best_kernels(), pool, ws);
    EXPECT_TRUE(status.ok()) << status.to_string();
    const size_t floats = rows * static_cast<size_t>(model_.config.vocab_size);
    return {ws.logits.begin(), ws.logits.begin() + static_cast<ptrdiff_t>(floats)};
  }

  static bool same(const std::vector<float>& x, const float* y) {
    return std::memcmp(x.data(), y, x.size() * sizeof(float)) == 0;
  }

  LoadedModel model_;
  std::shared_ptr<const RoutingTable> table_;
};

TEST_P(Adapters, EverySequenceOfABatchHasItsOwnBits) {
  const ModuleMask a = ModuleMask{0, 1};
  const ModuleMask b = ModuleMask{0, 2};
  const ModuleMask both = ModuleMask{0, 1, 2};
  const std::vector<Asked> asked = {
      {kBackbone, tokens(5, 1)}, {a, tokens(1, 2)},         {a, tokens(9, 3)}, {b, tokens(1, 4)},
      {both, tokens(6, 5)},      {kBackbone, tokens(1, 6)}, {a, tokens(3, 7)}};
  const auto batch = together(asked, 1);
  EXPECT_TRUE(same(batch, together(asked, 3).data())) << "the number of threads shows";
  size_t at = 0;
  for (size_t i = 0; i < asked.size(); ++i) {
    const auto alone = together({asked[i]}, 1);
    EXPECT_TRUE(same(alone, batch.data() + at)) << "sequence " << i;
    at += alone.size();
    if (asked[i].mask == kBackbone) continue;
    const auto without = together({{kBackbone, asked[i].tokens}}, 1);
    EXPECT_FALSE(same(alone, without.data())) << "sequence " << i << " is not changed";
  }
}

TEST_P(Adapters, ThoseNotUsedAreAsIfNeverLoaded) {
  const auto ids = tokens(8, 3);
  const auto plain = model_.logits(table({}), kBackbone, ids);
  const auto beside = model_.logits(table_, kBackbone, ids);
  ASSERT_EQ(plain.size(), beside.size());
  EXPECT_TRUE(same(plain, beside.data()));
  EXPECT_EQ(table({})->scope(kBackbone, {}), table_->scope(kBackbone, {}));
  EXPECT_NE(table_->scope(ModuleMask{0, 1}, {}), table_->scope(ModuleMask{0, 2}, {}));
  const auto only_b = table({table_->modules()[2]});
  EXPECT_TRUE(same(model_.logits(only_b, ModuleMask{0, 1}, ids),
                   model_.logits(table_, ModuleMask{0, 2}, ids).data()));
}

INSTANTIATE_TEST_SUITE_P(Families, Adapters,
                         ::testing::Values("qwen2_moe", "deepseek_v3_grouped", "deepseek_v3_direct",
                                           "llama_biases", "gpt_oss_mxfp4", "llama4_scout"));

/// An adapter of the stacks of a checkpoint as PEFT writes it, and the checkpoint that it merges
/// into: delta[e] = 2 * B[:, :, e] A[e], [outputs, inputs], turned round where the family does.
struct StackFamily {
  const char* name;
  const char* module;
};

class StackAdapters : public ::testing::TestWithParam<StackFamily> {};

TEST_P(StackAdapters, AgreeWithTheMergedCheckpoint) {
  const StackFamily& family = GetParam();
  const std::string from = own_golden_dir() + "/" + family.name;
  const auto model = LoadedModel::load(from, Precision::kF32);
  ASSERT_TRUE(model.ok()) << model.status().to_string();
  const ModelConfig& c = model->config;
  const auto file = SafetensorsFile::open(from + "/model.safetensors", Residency::kCopied);
  ASSERT_TRUE(file.ok());
  const int64_t rank = 2;
  const int64_t wide = c.num_experts * rank;
  std::mt19937 rng(7);
  std::normal_distribution<float> normal(0.0f, 0.1f);
  std::vector<TensorView> adapter;
  std::vector<TensorView> merged;
  for (const TensorView& tensor : file->tensors()) {
    const bool gate_up = tensor.name.ends_with(".experts.gate_up_proj");
    if (!gate_up && !tensor.name.ends_with(".experts.down_proj")) {
      merged.push_back(tensor);
      continue;
    }
    const int64_t in = tensor.shape[1];  // both families store [E, inputs, outputs]
    const int64_t out = tensor.shape[2];
    std::byte* bytes[3] = {};
    const std::string module = tensor.name.substr(0, tensor.name.rfind('.'));
    const std::string at = "base_model.model." + module + (gate_up ? ".base_layer" : "");
    adapter.push_back(make_tensor(at + ".lora_A.weight", DType::kF32, {wide, in}, &bytes[0]));
    adapter.push_back(make_tensor(at + ".lora_B.weight", DType::kF32, {out, wide}, &bytes[1]));
    merged.push_back(make_tensor(tensor.name, DType::kF32, tensor.shape, &bytes[2]));
    auto* a = reinterpret_cast<float*>(bytes[0]);
    auto* b = reinterpret_cast<float*>(bytes[1]);
    auto* w = reinterpret_cast<float*>(bytes[2]);
    for (int64_t i = 0; i < wide * in; ++i) a[i] = normal(rng);
    for (int64_t i = 0; i < wide * out; ++i) b[i] = normal(rng);
    TensorView flat = tensor;
    flat.shape = {tensor.elements()};
    const auto base = to_f32(flat, -1);
    ASSERT_TRUE(base.ok());
    for (int64_t e = 0; e < c.num_experts; ++e) {
      for (int64_t i = 0; i < in; ++i) {
        for (int64_t o = 0; o < out; ++o) {
          double sum = 0.0;
          for (int64_t k = 0; k < rank; ++k)
            sum += static_cast<double>(a[(e * rank + k) * in + i]) *
                   static_cast<double>(b[o * wide + k * c.num_experts + e]);
          const auto to = static_cast<size_t>((e * in + i) * out + o);
          w[to] = static_cast<float>(static_cast<double>((*base)[to]) + 2.0 * sum);
        }
      }
    }
  }
  ASSERT_FALSE(adapter.empty());
  const TempDir dir;
  std::filesystem::create_directories(dir / "stacks");
  std::filesystem::create_directories(dir / "merged");
  std::ofstream(dir / "stacks/adapter_config.json")
      << R"({"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_parameters": [")"
      << family.module << R"(.gate_up_proj", ")" << family.module << R"(.down_proj"]})";
  ASSERT_TRUE(write_safetensors(dir / "stacks/adapter_model.safetensors", adapter, {}).ok());
  ASSERT_TRUE(write_safetensors(dir / "merged/model.safetensors", merged, {}).ok());
  std::filesystem::copy_file(from + "/config.json", dir / "merged/config.json");
  const auto whole = LoadedModel::load(dir / "merged", Precision::kF32);
  ASSERT_TRUE(whole.ok()) << whole.status().to_string();
  const auto table = model->compose({dir / "stacks"});
  ASSERT_TRUE(table.ok()) << table.status().to_string();
  const auto plain = whole->compose({});
  ASSERT_TRUE(plain.ok());
  std::vector<int32_t> ids;
  for (int i = 0; i < 9; ++i) ids.push_back((3 + 7 * i) % static_cast<int>(c.vocab_size));
  const auto found = model->logits(*table, ModuleMask{0, 1}, ids);
  const auto wanted = whole->logits(*plain, ModuleMask{0}, ids);
  const auto without = model->logits(*table, ModuleMask{0}, ids);
  ASSERT_EQ(found.size(), wanted.size());
  float worst = 0.0f;
  float change = 0.0f;
  for (size_t i = 0; i < found.size(); ++i) {
    worst = std::max(worst, std::abs(found[i] - wanted[i]));
    change = std::max(change, std::abs(found[i] - without[i]));
  }
  EXPECT_LE(worst, 1e-3f);
  EXPECT_GE(change, 2e-2f);
}

INSTANTIATE_TEST_SUITE_P(Families, StackAdapters,
                         ::testing::Values(StackFamily{"gpt_oss", "mlp.experts"},
                                           StackFamily{"llama4_scout", "feed_forward.experts"}));

}  // namespace
}  // namespace chimera
