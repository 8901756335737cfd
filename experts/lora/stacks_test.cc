// Stacks of experts: every number where the formulas of PEFT and of shared-outer adapters put it.
#include "experts/lora/stacks.h"

#include <gtest/gtest.h>

#include <cstring>

#include "compute/tensor/memory.h"
#include "experts/lora/tensors.h"

namespace chimera {
namespace {

constexpr int64_t kExperts = 3, kRank = 2, kHidden = 8, kWidth = 5;

ModelConfig config_of(const char* family, int64_t width = kWidth) {
  ModelConfig c;
  c.model_type = family;
  c.hidden_size = kHidden;
  c.intermediate_size = width;
  c.num_layers = 1;
  c.num_experts = kExperts;
  c.moe_layers = {1};
  return c;
}

/// Numbers 0, 1, 2 … in order.
TensorView counted(std::vector<int64_t> shape) {
  std::byte* bytes = nullptr;
  TensorView view = make_unset_tensor("t", DType::kF32, std::move(shape), &bytes);
  auto* values = reinterpret_cast<float*>(bytes);
  for (int64_t i = 0; i < view.elements(); ++i) values[i] = static_cast<float>(i);
  return view;
}

float at(const TensorView& tensor, std::initializer_list<int64_t> index) {
  int64_t i = 0;
  size_t d = 0;
  for (const int64_t one : index) i = i * tensor.shape[d++] + one;
  float value = 0.0f;
  std::memcpy(&value, tensor.bytes.data() + i * 4, 4);
  return value;
}

LoraConfig adapter(const char* version = "0.19.1") {
  const std::string text =
      std::string(R"({"peft_type": "LORA", "r": 2, "lora_alpha": 6, "peft_version": ")") + version +
      R"(", "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]})";
  auto config = LoraConfig::parse(text, "test");
  EXPECT_TRUE(config.ok()) << config.status().to_string();
  return std::move(*config);
}

SplitStack split(const char* name, const TensorView& a, const TensorView& b,
                 const ModelConfig& config, const LoraConfig& lora) {
  const auto stack = find_stack(name, config);
  EXPECT_TRUE(stack.has_value()) << name;
  auto result = split_stack(*stack, a, b, lora, config);
  EXPECT_TRUE(result.ok()) << result.status().to_string();
  return result.ok() ? std::move(*result) : SplitStack();
}

TEST(Stacks, PeftsTargetParameters) {
  const ModelConfig config = config_of("qwen3_moe");
  const TensorView a = counted({kExperts * kRank, kHidden});
  const TensorView b = counted({2 * kWidth, kRank * kExperts});
  const SplitStack found = split("model.layers.0.mlp.experts.base_layer", a, b, config, adapter());
  EXPECT_EQ(found.stack, "model.layers.0.mlp.experts.gate_up_proj");
  ASSERT_EQ(found.changes.size(), static_cast<size_t>(2 * kExperts));
  for (const StoredChange& c : found.changes) {
    const int64_t e = c.target.expert;
    const int64_t first = c.target.projection == 0 ? 0 : kWidth;
    EXPECT_EQ(c.scale, 3.0);
    EXPECT_EQ(c.target.outputs, kWidth);
    EXPECT_FALSE(c.copied);
    for (int64_t k = 0; k < kRank; ++k) {
      for (int64_t i = 0; i < kHidden; ++i) EXPECT_EQ(at(c.a, {k, i}), at(a, {e * kRank + k, i}));
      for (int64_t n = 0; n < kWidth; ++n)
        EXPECT_EQ(at(c.b, {n, k}), at(b, {first + n, k * kExperts + e}));
    }
  }
}

TEST(Stacks, WhatWasWrittenTheOtherWayRound) {
  const ModelConfig config = config_of("qwen3_moe");
  const TensorView a = counted({kExperts * kRank, kHidden});  // of the outputs
  const TensorView b = counted({kWidth, kRank * kExperts});   // of the inputs
  const SplitStack found = split("model.layers.0.mlp.experts", a, b, config, adapter("0.17.1"));
  EXPECT_EQ(found.stack, "model.layers.0.mlp.experts.down_proj");
  for (const StoredChange& c : found.changes) {
    const int64_t e = c.target.expert;
    EXPECT_TRUE(c.copied);
    for (int64_t k = 0; k < kRank; ++k) {
      for (int64_t i = 0; i < kWidth; ++i) EXPECT_EQ(at(c.a, {k, i}), at(b, {i, k * kExperts + e}));
      for (int64_t n = 0; n < kHidden; ++n) EXPECT_EQ(at(c.b, {n, k}), at(a, {e * kRank + k, n}));
    }
  }
}

TEST(Stacks, WhatFitsBothWaysIsToldByTheVersion) {
  const ModelConfig config = config_of("qwen3_moe", kHidden);  // down [E, H, H]
  const TensorView a = counted({kExperts * kRank, kHidden});
  const TensorView b = counted({kHidden, kRank * kExperts});
  const auto stack = find_stack("model.layers.0.mlp.experts", config);
  ASSERT_TRUE(stack.has_value());
  EXPECT_FALSE(split("model.layers.0.mlp.experts", a, b, config, adapter()).changes[0].copied);
  EXPECT_TRUE(
      split("model.layers.0.mlp.experts", a, b, config, adapter("0.18.0")).changes[0].copied);
  EXPECT_EQ(split_stack(*stack, a, b, adapter("?"), config).status().code(), Code::kUnimplemented);
}

TEST(Stacks, InterleavedGateAndUp) {
  const ModelConfig config = config_of("gpt_oss");
  const TensorView a = counted({kExperts * kRank, kHidden});
  const TensorView b = counted({2 * kWidth, kRank * kExperts});
  for (const StoredChange& c :
       split("model.layers.0.mlp.experts", a, b, config, adapter()).changes) {
    for (int64_t n = 0; n < kWidth; ++n) {
      EXPECT_EQ(at(c.b, {n, 1}), at(b, {2 * n + static_cast<int64_t>(c.target.projection),
                                        kExperts + c.target.expert}));
    }
  }
}

TEST(Stacks, OuterSidesThatExpertsShare) {
  const ModelConfig config = config_of("qwen3_moe");
  const TensorView a = counted({1, kRank, kHidden});
  const TensorView b = counted({kExperts, 2 * kWidth, kRank});
  const SplitStack both = split("model.layers.0.mlp.experts.gate_up_proj", a, b, config, adapter());
  for (const StoredChange& c : both.changes) {
    EXPECT_EQ(at(c.a, {1, 3}), at(a, {0, 1, 3}));
    const int64_t first = c.target.projection == 0 ? 0 : kWidth;
    EXPECT_EQ(at(c.b, {4, 1}), at(b, {c.target.expert, first + 4, 1}));
  }
  const TensorView down_a = counted({kExperts, kRank, kWidth});
  const TensorView down_b = counted({1, kHidden, kRank});
  for (const StoredChange& c :
       split("model.layers.0.mlp.experts.w2", down_a, down_b, config, adapter()).changes) {
    EXPECT_EQ(at(c.a, {1, 3}), at(down_a, {c.target.expert, 1, 3}));
    EXPECT_EQ(at(c.b, {7, 1}), at(down_b, {0, 7, 1}));
  }
}

TEST(Stacks, MisfitsAreNamed) {
  const ModelConfig config = config_of("qwen3_moe");
  const auto stack = find_stack("model.layers.0.mlp.experts", config);
  const auto wrong =
      split_stack(*stack, counted({4, kHidden}), counted({2 * kWidth, 4}), adapter(), config);
  EXPECT_EQ(wrong.status().code(), Code::kFailedPrecondition);
  EXPECT_NE(wrong.status().message().find("[6, 8] with [10, 6]"), std::string::npos)
      << wrong.status().message();
  EXPECT_FALSE(find_stack("model.layers.0.mlp.experts.base_layer.base_layer", config).has_value());
  EXPECT_FALSE(find_stack("model.layers.1.mlp.experts", config).has_value());
  ModelConfig dense = config_of("llama");
  dense.dense_base = true;
  EXPECT_FALSE(find_stack("model.layers.0.mlp", dense).has_value());
}

TEST(Stacks, AFileOfThemIsWholeOrSaysWhatItLacks) {
  ModelConfig config = config_of("qwen3_moe");
  config.num_heads = config.num_kv_heads = 2;
  config.head_dim = config.v_head_dim = 4;
  std::vector<TensorView> tensors = {
      counted({kExperts * kRank, kHidden}), counted({2 * kWidth, kRank * kExperts}),
      counted({kExperts * kRank, kWidth}), counted({kHidden, kRank * kExperts})};
  const std::string at = "base_model.model.model.layers.0.mlp.experts.";
  tensors[0].name = at + "base_layer.lora_A.weight";
  tensors[1].name = at + "base_layer.lora_B.weight";
  tensors[2].name = at + "lora_A.weight";
  tensors[3].name = at + "lora_B.weight";
  const std::string path = ::testing::TempDir() + "stacks_test.safetensors";
  const auto sorted = [&](size_t count) {
    EXPECT_TRUE(write_safetensors(path, {tensors.begin(), tensors.begin() + count}, {}).ok());
    const auto file = SafetensorsFile::open(path, Residency::kCopied);
    EXPECT_TRUE(file.ok());
    return sort_adapter_tensors(*file, adapter(), config, TensorDepth::kContent, "module x");
  };
  const auto whole = sorted(4);
  ASSERT_TRUE(whole.ok()) << whole.status().to_string();
  EXPECT_EQ(whole->size(), static_cast<size_t>(3 * kExperts));
  for (const StoredChange& change : *whole) {
    EXPECT_EQ(change.a.shape, (std::vector<int64_t>{kRank, change.target.inputs}));
    EXPECT_EQ(change.b.shape, (std::vector<int64_t>{change.target.outputs, kRank}));
  }
  const auto half = sorted(2);
  EXPECT_EQ(half.status().code(), Code::kFailedPrecondition);
  EXPECT_NE(half.status().message().find("model.layers.0.mlp.experts.down_proj"), std::string::npos)
      << half.status().message();
}

TEST(Stacks, ASecondChangeOfAWeightIsRefused) {
  ModelConfig config = config_of("qwen3_moe");
  config.num_heads = config.num_kv_heads = 2;
  config.head_dim = config.v_head_dim = 4;
  const auto lora = LoraConfig::parse(
      R"({"peft_type": "LORA", "r": 2, "lora_alpha": 6, "target_modules": ["q_proj", "gate_proj"],
          "layers_to_transform": [0]})",
      "test");
  ASSERT_TRUE(lora.ok()) << lora.status().to_string();
  struct Named {
    std::string part;
    std::vector<int64_t> a, b;
  };
  const auto sorted = [&](const std::vector<Named>& pairs) {
    std::vector<TensorView> tensors;
    for (const auto& [part, a, b] : pairs) {
      tensors.push_back(counted(a));
      tensors.back().name = "base_model.model." + part + ".lora_A.weight";
      tensors.push_back(counted(b));
      tensors.back().name = "base_model.model." + part + ".lora_B.weight";
    }
    const std::string path = ::testing::TempDir() + "second_change_test.safetensors";
    EXPECT_TRUE(write_safetensors(path, tensors, {}).ok());
    const auto file = SafetensorsFile::open(path, Residency::kCopied);
    EXPECT_TRUE(file.ok());
    return sort_adapter_tensors(*file, *lora, config, TensorDepth::kContent, "module x").status();
  };
  const std::vector<int64_t> down{kRank, kHidden};
  const Named q{"model.layers.0.self_attn.q_proj", down, {kHidden, kRank}};
  const Named respelled{"language_model." + q.part, q.a, q.b};
  const Named one{"model.layers.0.mlp.experts.1.gate_proj", down, {kWidth, kRank}};
  const Named gates{"model.layers.0.mlp.experts.gate_proj",
                    {kExperts, kRank, kHidden},
                    {kExperts, kWidth, kRank}};
  const Named both{"model.layers.0.mlp.experts.gate_up_proj",
                   {kExperts, kRank, kHidden},
                   {kExperts, 2 * kWidth, kRank}};
  EXPECT_TRUE(sorted({q, one}).ok()) << sorted({q, one}).to_string();
  EXPECT_TRUE(sorted({q, gates}).ok()) << sorted({q, gates}).to_string();
  for (const auto& [first, second] : {std::pair(q, respelled), std::pair(one, gates),
                                      std::pair(one, both), std::pair(gates, both)}) {
    std::vector<Named> all{first, second};
    if (first.part != q.part) all.push_back(q);
    const Status refused = sorted(all);
    EXPECT_EQ(refused.code(), Code::kFailedPrecondition) << second.part;
    for (const std::string& part : {first.part, second.part})
      EXPECT_NE(refused.message().find('"' + part + '"'), std::string::npos) << refused.message();
    EXPECT_NE(refused.message().find("two changes"), std::string::npos) << refused.message();
  }
}

}  // namespace
}  // namespace chimera
