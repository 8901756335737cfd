#include "backbone/families/model_config.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/json/testing.h"
#include "base/json/writer.h"

namespace chimera {
namespace {

namespace fs = std::filesystem;

const fs::path kGolden = fs::path(CHIMERA_SOURCE_DIR) / "../shared/golden/open/models";

std::string read_text(const fs::path& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

Json base(const std::string& model_type) {
  return {{"model_type", model_type}, {"hidden_size", 64},        {"intermediate_size", 48},
          {"num_hidden_layers", 3},   {"num_attention_heads", 4}, {"num_key_value_heads", 2},
          {"num_experts_per_tok", 2}, {"vocab_size", 320},        {"hidden_act", "silu"}};
}

Result<ModelConfig> parse(const Json& j) {
  return parse_model_config(write_json(j), "config.json");
}

ModelConfig parsed(const Json& j) {
  Result<ModelConfig> c = parse(j);
  EXPECT_TRUE(c.ok()) << c.status().to_string();
  return c.ok() ? *c : ModelConfig{};
}

class GoldenConfigs : public testing::TestWithParam<std::string> {};

TEST_P(GoldenConfigs, AllSpellingsMeanTheSame) {
  const fs::path dir = kGolden / GetParam();
  if (!fs::exists(dir)) GTEST_SKIP() << dir << " is absent";
  const Json raw = json_of(read_text(dir / "config.json"));
  const Json& text = raw.contains("text_config") ? raw["text_config"] : raw;
  const ModelConfig config = parsed(raw);
  EXPECT_EQ(config.hidden_size, text.value("hidden_size", int64_t{0}));
  const Json& rope = text.contains("rope_parameters") ? text["rope_parameters"] : text;
  EXPECT_EQ(config.rope.theta, rope.value("rope_theta", 0.0));
  EXPECT_EQ(config.num_experts_per_tok, text.value("num_experts_per_tok", int64_t{1}));
  const auto layers = static_cast<size_t>(config.num_layers);
  EXPECT_EQ(config.masks.size(), layers);
  EXPECT_EQ(config.moe_layers.size(), layers);
  EXPECT_EQ(config.rope_layers.size(), layers);
  const Json& eos = text["eos_token_id"];
  EXPECT_EQ(config.eos_token_ids, ids_of(eos.is_array() ? eos : Json::array({eos})));
  if (!fs::exists(dir / "alt_configs")) return;
  int compared = 0;
  for (const auto& entry : fs::directory_iterator(dir / "alt_configs")) {
    EXPECT_EQ(parsed(json_of(read_text(entry.path()))), config) << entry.path();
    ++compared;
  }
  EXPECT_GE(compared, 1);
}

INSTANTIATE_TEST_SUITE_P(Open, GoldenConfigs,
                         testing::Values("deepseek_v3_f32", "deepseek_v3_bf16", "deepseek_v3_fp8",
                                         "flex_olmo_f32", "flex_olmo_bf16", "llama4_composite_bf16",
                                         "llama4_text_f32", "llama4_text_bf16", "llama_f32",
                                         "llama_bf16", "mixtral_f32", "mixtral_bf16", "olmoe_f32",
                                         "olmoe_bf16", "qwen3_moe_f32", "qwen3_moe_bf16",
                                         "qwen3_moe_v5_fused_bf16", "qwen3_tied_bf16"),
                         [](const auto& name) { return name.param; });

TEST(ModelConfig, ClassDefaultsPerFamily) {
  Json j = base("flex_olmo");
  j.erase("num_experts_per_tok");
  j.erase("num_key_value_heads");
  ModelConfig c = parsed(j);
  EXPECT_EQ(c.num_experts, 7);
  EXPECT_EQ(c.num_experts_per_tok, 5);
  EXPECT_EQ(c.num_kv_heads, 4);
  EXPECT_EQ(c.rope.theta, 5e5);
  EXPECT_EQ(c.rms_norm_eps, 1e-6f);
  EXPECT_EQ(c.norm_placement, NormPlacement::kPost);
  EXPECT_EQ(c.qk_norm, QkNorm::kWholeVector);
  EXPECT_FALSE(c.norm_topk_prob);

  j["model_type"] = "olmoe";
  c = parsed(j);
  EXPECT_EQ(c.num_experts, 64);
  EXPECT_EQ(c.num_experts_per_tok, 8);
  EXPECT_EQ(c.rope.theta, 1e4);
  EXPECT_EQ(c.rms_norm_eps, 1e-5f);
  EXPECT_EQ(c.norm_placement, NormPlacement::kPre);

  j["model_type"] = "mixtral";
  j["num_attention_heads"] = 16;
  c = parsed(j);
  EXPECT_EQ(c.num_experts, 8);
  EXPECT_EQ(c.num_experts_per_tok, 2);
  EXPECT_EQ(c.num_kv_heads, 8);
  EXPECT_EQ(c.rope.theta, 1e6);
  EXPECT_TRUE(c.norm_topk_prob);
  EXPECT_EQ(c.qk_norm, QkNorm::kNone);
  EXPECT_EQ(c.max_position_embeddings, 131072);
}

TEST(ModelConfig, ClassDefaultsOfTheQwenAndLlamaFamilies) {
  Json j = base("qwen2_moe");
  for (const char* key : {"num_experts_per_tok", "num_key_value_heads", "intermediate_size"})
    j.erase(key);
  j["num_attention_heads"] = 16;
  ModelConfig c = parsed(j);
  EXPECT_EQ(c.num_experts, 60);
  EXPECT_EQ(c.num_experts_per_tok, 4);
  EXPECT_EQ(c.num_kv_heads, 16);
  EXPECT_EQ(c.intermediate_size, 1408);
  EXPECT_EQ(c.shared_intermediate_size, 5632);
  EXPECT_TRUE(c.shared_gated && c.attention_bias && !c.attention_output_bias && !c.norm_topk_prob);
  EXPECT_EQ(c.max_position_embeddings, 32768);

  j["model_type"] = "qwen3_moe";
  c = parsed(j);
  EXPECT_EQ(c.num_experts, 128);
  EXPECT_EQ(c.num_experts_per_tok, 8);
  EXPECT_EQ(c.num_kv_heads, 4);
  EXPECT_EQ(c.head_dim, 4);
  EXPECT_EQ(c.intermediate_size, 768);
  EXPECT_EQ(c.shared_intermediate_size, 0);
  EXPECT_EQ(c.qk_norm, QkNorm::kPerHead);

  j["model_type"] = "qwen3";
  j["num_attention_heads"] = 32;
  j["intermediate_size"] = 96;
  c = parsed(j);
  EXPECT_EQ(c.num_kv_heads, 32);
  EXPECT_EQ(c.head_dim, 128);
  EXPECT_TRUE(c.dense_base);
  EXPECT_EQ(c.num_experts, 1);

  j["model_type"] = "llama";
  c = parsed(j);
  EXPECT_EQ(c.head_dim, 2);
  EXPECT_EQ(c.rms_norm_eps, 1e-6f);
  EXPECT_EQ(c.max_position_embeddings, 2048);
  j["num_key_value_heads"] = nullptr;
  EXPECT_EQ(parsed(j).num_kv_heads, 32);
}

TEST(ModelConfig, ClassDefaultsOfDeepseekV2) {
  Json j = base("deepseek_v2");
  j["num_hidden_layers"] = 3;
  ModelConfig c = parsed(j);
  ASSERT_TRUE(c.mla.has_value());
  EXPECT_EQ(c.mla->q_lora_rank, 1536);
  EXPECT_EQ(c.key_width(), 576);
  EXPECT_EQ(c.num_experts, 64);
  EXPECT_EQ(c.gate_kind, GateKind::kSoftmaxTopK);
  EXPECT_EQ(c.n_group, 1);
  EXPECT_EQ(c.routed_scaling_factor, 1.0f);
  EXPECT_EQ(c.max_position_embeddings, 2048);
  EXPECT_EQ(c.intermediate_size, 1407);
  EXPECT_EQ(c.shared_intermediate_size, 2 * 1407);
  EXPECT_EQ(c.moe_layers, (std::vector<uint8_t>{1, 1, 1}));
  EXPECT_FALSE(c.norm_topk_prob || c.score_correction);
  EXPECT_TRUE(c.rope_interleaved);
  // Without groups in the method, whatever else is said of them.
  j["n_group"] = 8;
  j["topk_group"] = 3;
  EXPECT_EQ(parsed(j).n_group, 1);
  j["topk_method"] = "group_limited_greedy";
  EXPECT_EQ(parsed(j).n_group, 8);
  EXPECT_EQ(parsed(j).topk_group, 3);
  j["n_shared_experts"] = nullptr;
  EXPECT_EQ(parsed(j).shared_intermediate_size, 0);
}

TEST(ModelConfig, ClassDefaultsOfDeepseek) {
  Json j = base("deepseek_v3");
  j.erase("num_experts_per_tok");
  j["num_hidden_layers"] = 5;
  j["moe_intermediate_size"] = 16;
  j["head_dim"] = 64;  // as newer releases write it: the rotated part
  ModelConfig c = parsed(j);
  ASSERT_TRUE(c.mla.has_value());
  EXPECT_EQ(c.mla->q_lora_rank, 1536);
  EXPECT_EQ(c.mla->kv_lora_rank, 512);
  EXPECT_EQ(c.head_dim, 192);
  EXPECT_EQ(c.rope_dim, 64);
  EXPECT_EQ(c.v_head_dim, 128);
  EXPECT_EQ(c.key_width(), 576);
  EXPECT_EQ(c.value_width(), 0);
  EXPECT_EQ(c.num_experts, 256);
  EXPECT_EQ(c.num_experts_per_tok, 8);
  EXPECT_EQ(c.n_group, 8);
  EXPECT_EQ(c.topk_group, 4);
  EXPECT_EQ(c.routed_scaling_factor, 2.5f);
  EXPECT_EQ(c.moe_layers, (std::vector<uint8_t>{0, 0, 0, 1, 1}));
  EXPECT_EQ(c.dense_intermediate_size, 48);
  EXPECT_EQ(c.shared_intermediate_size, 16);
  EXPECT_TRUE(c.norm_topk_prob && c.rope_interleaved);
  j["q_lora_rank"] = nullptr;
  EXPECT_EQ(parsed(j).mla->q_lora_rank, 0);
}

TEST(ModelConfig, ClassDefaultsOfLlama4AndGptOss) {
  Json j = base("llama4_text");
  j.erase("num_experts_per_tok");
  j["num_hidden_layers"] = 8;
  ModelConfig c = parsed(j);
  EXPECT_EQ(c.num_experts, 16);
  EXPECT_EQ(c.num_experts_per_tok, 1);
  EXPECT_EQ(c.head_dim, 128);
  EXPECT_EQ(c.rope.theta, 5e5);
  EXPECT_EQ(c.rope_layers, (std::vector<uint8_t>{1, 1, 1, 0, 1, 1, 1, 0}));
  EXPECT_EQ(c.masks[2], (AttentionMask{MaskKind::kChunked, 8192}));
  EXPECT_EQ(c.masks[3], AttentionMask{});
  EXPECT_EQ(c.temperature_tuning, TemperatureTuning{});
  EXPECT_EQ(c.qk_norm, QkNorm::kPerHeadAfterRope);
  j["head_dim"] = nullptr;
  EXPECT_EQ(parsed(j).head_dim, 16);
  j["interleave_moe_layer_step"] = 4;
  EXPECT_EQ(parsed(j).moe_layers, (std::vector<uint8_t>{0, 0, 0, 1, 0, 0, 0, 1}));
  EXPECT_EQ(parsed(j).dense_intermediate_size, 16384);

  j = base("gpt_oss");
  for (const char* key : {"num_experts_per_tok", "num_key_value_heads"}) j.erase(key);
  j["num_attention_heads"] = 8;
  c = parsed(j);
  EXPECT_EQ(c.num_experts, 128);
  EXPECT_EQ(c.num_experts_per_tok, 4);
  EXPECT_EQ(c.head_dim, 64);
  EXPECT_EQ(c.masks[0], (AttentionMask{MaskKind::kSliding, 128}));
  EXPECT_EQ(c.masks[1], AttentionMask{});
  j["rope_theta"] = 150000;
  j["rope_scaling"] = {{"rope_type", "yarn"}, {"factor", 32.0},
                       {"beta_fast", 32.0},   {"beta_slow", 1.0},
                       {"truncate", false},   {"original_max_position_embeddings", 4096}};
  EXPECT_EQ(parsed(j), c) << "the default written out";
}

TEST(ModelConfig, CompositeCheckpointsAreReadFromTextConfig) {
  Json text = base("llama4_text");
  const ModelConfig flat = parsed(text);
  ModelConfig c = parsed({{"model_type", "llama4"}, {"text_config", text}});
  EXPECT_EQ(c.tensor_prefix, "language_model.");
  EXPECT_EQ(layer_tensor(c, 1, tensor_names(c).gate),
            "language_model.model.layers.1.feed_forward.router.weight");
  EXPECT_TRUE(is_expert_tensor(c, "language_model.model.layers.1.feed_forward.experts.down_proj"));
  EXPECT_FALSE(is_expert_tensor(c, "model.layers.1.feed_forward.experts.down_proj"));
  EXPECT_FALSE(is_expert_tensor(c, "vision_model.layernorm_pre.weight"));
  c.model_type = flat.model_type;
  c.tensor_prefix.clear();
  EXPECT_EQ(c, flat);
}

TEST(ModelConfig, LayerTypesWin) {
  Json j = base("qwen3");
  j["use_sliding_window"] = true;
  j["sliding_window"] = 9;
  j["max_window_layers"] = 2;
  const AttentionMask window{MaskKind::kSliding, 9};
  EXPECT_EQ(parsed(j).masks, (std::vector<AttentionMask>{{}, {}, window}));
  j["layer_types"] = Json::array({"sliding_attention", "full_attention", "full_attention"});
  EXPECT_EQ(parsed(j).masks, (std::vector<AttentionMask>{window, {}, {}}));
  j.erase("layer_types");
  j["use_sliding_window"] = false;
  EXPECT_EQ(parsed(j).masks, std::vector<AttentionMask>(3));
}

TEST(ModelConfig, ExpertCountUnderAnyName) {
  for (const char* key : {"num_experts", "num_local_experts", "n_routed_experts"}) {
    Json j = base("qwen3_moe");
    j[key] = 24;
    EXPECT_EQ(parsed(j).num_experts, 24) << key;
  }
}

TEST(AttentionMask, FirstVisible) {
  const AttentionMask window{MaskKind::kSliding, 4};
  EXPECT_EQ(window.first_visible(3), 0);
  EXPECT_EQ(window.first_visible(4), 1);
  const AttentionMask chunk{MaskKind::kChunked, 4};
  EXPECT_EQ(chunk.first_visible(3), 0);
  EXPECT_EQ(chunk.first_visible(4), 4);
  EXPECT_EQ(chunk.first_visible(7), 4);
  EXPECT_EQ(AttentionMask{}.first_visible(99), 0);
}

TEST(ModelConfig, ToleratesOldSpellings) {
  Json j = base("olmoe");
  j["norm_topk_prob"] = 1;
  j["tie_word_embeddings"] = 0;
  j["rms_norm_eps"] = 1e-5;
  j["clip_qkv"] = 8;
  j["hidden_size"] = 64.0;
  j["eos_token_id"] = Json::array({3, 5});
  j["rope_scaling"] = {{"type", "linear"}, {"factor", 4}};
  const ModelConfig c = parsed(j);
  EXPECT_TRUE(c.norm_topk_prob);
  EXPECT_FALSE(c.tie_word_embeddings);
  EXPECT_EQ(c.clip_qkv, 8.0f);
  EXPECT_EQ(c.eos_token_ids, (std::vector<int32_t>{3, 5}));
  EXPECT_EQ(c.rope.type, RopeType::kLinear);
  EXPECT_EQ(c.rope.factor, 4.0);
}

TEST(ModelConfig, RopeParametersWinOverTheTopLevel) {
  Json j = base("mixtral");
  j["rope_theta"] = 1e4;
  j["rope_parameters"] = {{"rope_theta", 7e5}, {"rope_type", "linear"}, {"factor", 2.0}};
  const ModelConfig c = parsed(j);
  EXPECT_EQ(c.rope.theta, 7e5);
  EXPECT_EQ(c.rope.factor, 2.0);
}

TEST(ModelConfig, MixtralSlidingWindow) {
  Json j = base("mixtral");
  j["sliding_window"] = 4096;
  EXPECT_EQ(parsed(j).masks, std::vector(3, AttentionMask{MaskKind::kSliding, 4096}));
  j["sliding_window"] = nullptr;
  EXPECT_EQ(parsed(j).masks, std::vector(3, AttentionMask{}));
}

TEST(ModelConfig, GenerationConfigAddsEndTokens) {
  Json j = base("olmoe");
  j["eos_token_id"] = 3;
  ModelConfig c = parsed(j);
  ASSERT_TRUE(
      add_generation_config(R"({"eos_token_id": [7, 3]})", "generation_config.json", c).ok());
  EXPECT_EQ(c.eos_token_ids, (std::vector<int32_t>{3, 7}));
  EXPECT_FALSE(add_generation_config(R"({"eos_token_id": 320})", "generation_config.json", c).ok());
}

struct Refusal {
  const char* name;
  const char* family;
  Json patch;  // merged into the base config
  Code code;
  std::vector<std::string> mentions;  // parts of the message
};

class RefusedConfigs : public testing::TestWithParam<Refusal> {};

TEST_P(RefusedConfigs, NamesKeyValueAndWhatIsSupported) {
  Json j = base(GetParam().family);
  for (const auto& [key, value] : GetParam().patch.items()) j[key] = value;
  const Result<ModelConfig> c = parse(j);
  ASSERT_FALSE(c.ok());
  EXPECT_EQ(c.status().code(), GetParam().code) << c.status().to_string();
  for (const std::string& part : GetParam().mentions)
    EXPECT_NE(c.status().to_string().find(part), std::string::npos)
        << '"' << part << "\" in: " << c.status().to_string();
}

INSTANTIATE_TEST_SUITE_P(
    Config, RefusedConfigs,
    testing::Values(
        Refusal{"unknown_family",
                "phi3",
                Json::object(),
                Code::kUnimplemented,
                {"model_type", "phi3", "deepseek_v3 (kimi_k2), flex_olmo, gpt_oss",
                 "nearest supported family is llama"}},
        Refusal{"activation",
                "olmoe",
                {{"hidden_act", "gelu"}},
                Code::kUnimplemented,
                {"hidden_act", "gelu", "silu"}},
        Refusal{"rope_type",
                "mixtral",
                {{"rope_scaling", {{"rope_type", "longrope"}, {"factor", 4}}}},
                Code::kUnimplemented,
                {"rope_scaling.rope_type", "longrope", "default, linear"}},
        Refusal{"legacy_rope_type",
                "olmoe",
                {{"rope_scaling", {{"type", "su"}, {"factor", 4}}}},
                Code::kUnimplemented,
                {"rope_scaling.type", "su"}},
        Refusal{"v5_rope_type",
                "flex_olmo",
                {{"rope_parameters", {{"rope_type", "mrope"}}}},
                Code::kUnimplemented,
                {"rope_parameters.rope_type", "mrope"}},
        Refusal{"rope_per_layer_type",
                "olmoe",
                {{"rope_parameters", {{"full_attention", {{"rope_theta", 1e4}}}}}},
                Code::kUnimplemented,
                {"rope_parameters.full_attention"}},
        Refusal{"nameless_scaling",
                "olmoe",
                {{"rope_scaling", {{"factor", 2}}}},
                Code::kInvalidArgument,
                {"rope_scaling.factor", "rope_type"}},
        Refusal{"linear_without_factor",
                "olmoe",
                {{"rope_scaling", {{"type", "linear"}}}},
                Code::kInvalidArgument,
                {"factor", "above 0"}},
        Refusal{"quantised",
                "mixtral",
                {{"quantization_config", {{"quant_method", "gptq"}}}},
                Code::kUnimplemented,
                {"quantization_config", "gptq"}},
        Refusal{"both_rope_spellings",
                "llama",
                {{"rope_scaling", {{"type", "linear"}, {"factor", 2}}},
                 {"rope_parameters", {{"rope_theta", 1e4}, {"type", "yarn"}}}},
                Code::kUnimplemented,
                {"rope_parameters.type", "yarn", "rope_scaling.type", "linear"}},
        Refusal{"two_rope_types",
                "llama",
                {{"rope_scaling", {{"type", "linear"}, {"rope_type", "yarn"}, {"factor", 2}}}},
                Code::kUnimplemented,
                {"rope_scaling.type", "linear", "yarn"}},
        Refusal{"llama3_without_bounds",
                "qwen3",
                {{"rope_scaling", {{"rope_type", "llama3"}, {"factor", 2}}}},
                Code::kInvalidArgument,
                {"rope_scaling.low_freq_factor"}},
        Refusal{"llama4_rope",
                "llama4_text",
                {{"rope_scaling", {{"rope_type", "yarn"}, {"factor", 2}}}},
                Code::kUnimplemented,
                {"rope_scaling.rope_type", "yarn", "default, llama3"}},
        Refusal{"llama4_bias",
                "llama4_text",
                {{"attention_bias", true}},
                Code::kUnimplemented,
                {"attention_bias", "disagree"}},
        Refusal{"llama4_chunk",
                "llama4_text",
                {{"attention_chunk_size", nullptr}},
                Code::kUnimplemented,
                {"attention_chunk_size", "chunked_attention"}},
        Refusal{"llama4_list",
                "llama4_text",
                {{"no_rope_layers", Json::array({1, 0})}},
                Code::kInvalidArgument,
                {"no_rope_layers", "2 entries", "3"}},
        Refusal{"composite_without_text",
                "llama4",
                Json::object(),
                Code::kInvalidArgument,
                {"text_config is missing"}},
        Refusal{"composite_names_the_key",
                "llama4",
                {{"text_config", {{"model_type", "llama4_text"}, {"hidden_size", "x"}}}},
                Code::kInvalidArgument,
                {"text_config.hidden_size"}},
        Refusal{"qwen2_window",
                "qwen2_moe",
                {{"use_sliding_window", true}},
                Code::kUnimplemented,
                {"use_sliding_window", "true"}},
        Refusal{"gpt_oss_bias",
                "gpt_oss",
                {{"attention_bias", false}},
                Code::kUnimplemented,
                {"attention_bias", "false"}},
        Refusal{"gpt_oss_rope",
                "gpt_oss",
                {{"rope_scaling", nullptr}},
                Code::kUnimplemented,
                {"rope_scaling is null"}},
        Refusal{"gpt_oss_limit",
                "gpt_oss",
                {{"swiglu_limit", 5.0}},
                Code::kUnimplemented,
                {"swiglu_limit", "5.0"}},
        Refusal{"gpt_oss_types",
                "gpt_oss",
                {{"layer_types", Json::array({"full_attention", "full_attention"})}},
                Code::kInvalidArgument,
                {"layer_types", "2 entries"}},
        Refusal{"deepseek_scores",
                "deepseek_v3",
                {{"moe_intermediate_size", 8}, {"scoring_func", "softmax"}},
                Code::kUnimplemented,
                {"scoring_func", "softmax", "sigmoid"}},
        Refusal{"deepseek_v2_scores",
                "deepseek_v2",
                {{"scoring_func", "sigmoid"}},
                Code::kUnimplemented,
                {"scoring_func", "sigmoid", "softmax"}},
        Refusal{"deepseek_v2_method",
                "deepseek_v2",
                {{"topk_method", "noaux_tc"}},
                Code::kUnimplemented,
                {"topk_method", "noaux_tc", "greedy or group_limited_greedy"}},
        Refusal{"deepseek_v2_norm",
                "deepseek_v2",
                {{"norm_topk_prob", true}},
                Code::kUnimplemented,
                {"norm_topk_prob", "true"}},
        Refusal{"deepseek_v2_rotation",
                "deepseek_v2",
                {{"rope_interleave", false}},
                Code::kUnimplemented,
                {"rope_interleave", "false"}},
        Refusal{"deepseek_v2_groups",
                "deepseek_v2",
                {{"topk_method", "group_limited_greedy"}, {"n_group", 3}, {"topk_group", 2}},
                Code::kInvalidArgument,
                {"n_group is 3", "64"}},
        Refusal{"deepseek_groups",
                "deepseek_v3",
                {{"moe_intermediate_size", 8}, {"n_routed_experts", 10}, {"n_group", 4}},
                Code::kInvalidArgument,
                {"n_group is 4", "10"}},
        Refusal{"fp8_blocks",
                "deepseek_v3",
                {{"quantization_config", {{"quant_method", "fp8"}, {"fmt", "e5m2"}}}},
                Code::kUnimplemented,
                {"quantization_config.fmt", "e5m2", "e4m3"}},
        Refusal{"two_counts",
                "qwen3_moe",
                {{"num_experts", 8}, {"num_local_experts", 16}},
                Code::kInvalidArgument,
                {"num_experts is 8", "16", "num_local_experts"}},
        Refusal{"olmo_window",
                "olmoe",
                {{"sliding_window", 128}},
                Code::kUnimplemented,
                {"sliding_window", "128"}},
        Refusal{"flex_clip", "flex_olmo", {{"clip_qkv", 8.0}}, Code::kUnimplemented, {"clip_qkv"}},
        Refusal{"mixtral_bias",
                "mixtral",
                {{"attention_bias", true}},
                Code::kUnimplemented,
                {"attention_bias", "true"}},
        Refusal{"layer_types",
                "olmoe",
                {{"layer_types", Json::array({"full_attention", "linear_attention"})}},
                Code::kUnimplemented,
                {"layer_types", "linear_attention"}},
        Refusal{"missing_size",
                "olmoe",
                {{"hidden_size", nullptr}},
                Code::kInvalidArgument,
                {"hidden_size is missing"}},
        Refusal{"negative",
                "olmoe",
                {{"num_hidden_layers", -1}},
                Code::kInvalidArgument,
                {"num_hidden_layers is -1", "expected an integer"}},
        Refusal{"text_for_number",
                "olmoe",
                {{"vocab_size", "many"}},
                Code::kInvalidArgument,
                {"vocab_size", "many"}},
        Refusal{"bool_text",
                "olmoe",
                {{"norm_topk_prob", "yes"}},
                Code::kInvalidArgument,
                {"norm_topk_prob", "true or false"}},
        Refusal{"heads",
                "olmoe",
                {{"num_key_value_heads", 3}},
                Code::kInvalidArgument,
                {"num_attention_heads is 4", "num_key_value_heads 3"}},
        Refusal{"odd_head",
                "mixtral",
                {{"head_dim", 15}},
                Code::kInvalidArgument,
                {"head_dim is 15", "even"}},
        Refusal{"olmoe_head_dim",
                "olmoe",
                {{"head_dim", 32}},
                Code::kUnimplemented,
                {"head_dim is 32", "16"}},
        Refusal{"top_k",
                "olmoe",
                {{"num_experts", 4}, {"num_experts_per_tok", 5}},
                Code::kInvalidArgument,
                {"num_experts_per_tok is 5", "4"}},
        Refusal{"eos",
                "olmoe",
                {{"eos_token_id", 320}},
                Code::kInvalidArgument,
                {"eos_token_id is 320", "vocab_size 320"}}),
    [](const auto& refusal) { return std::string(refusal.param.name); });

TEST(ModelConfig, NotAConfig) {
  for (const char* text : {"", "{", "[1,2]", "null", "\xff\xfe", "{\"model_type\": 3}", "{}"})
    EXPECT_FALSE(parse_model_config(text, "config.json").ok()) << text;
  const std::string deep =
      "{\"model_type\": \"llama\", \"quantization_config\": " + std::string(500'000, '[') +
      std::string(500'000, ']') + "}";
  EXPECT_EQ(parse_model_config(deep, "config.json").status().code(), Code::kDataCorrupt);
}

TEST(TensorNames, FollowTheFamily) {
  const ModelConfig olmoe = parsed(base("olmoe"));
  EXPECT_EQ(layer_tensor(olmoe, 2, tensor_names(olmoe).gate), "model.layers.2.mlp.gate.weight");
  EXPECT_EQ(expert_tensor(olmoe, 2, 11, tensor_names(olmoe).expert_down),
            "model.layers.2.mlp.experts.11.down_proj.weight");
  const ModelConfig mixtral = parsed(base("mixtral"));
  EXPECT_EQ(expert_tensor(mixtral, 0, 7, tensor_names(mixtral).expert_up),
            "model.layers.0.block_sparse_moe.experts.7.w3.weight");
}

TEST(TensorNames, ExpertTensorsAreRoutedExpertsAndGates) {
  const ModelConfig olmoe = parsed(base("olmoe"));
  for (const char* name :
       {"model.layers.0.mlp.experts.3.up_proj.weight", "model.layers.12.mlp.gate.weight",
        "model.layers.0.mlp.experts.gate_up_proj", "model.layers.0.mlp.experts.down_proj"})
    EXPECT_TRUE(is_expert_tensor(olmoe, name)) << name;
  for (const char* name :
       {"model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight",
        "model.layers..mlp.gate.weight", "model.layers.0.mlp.experts.x.up_proj.weight",
        "lm_head.weight", "model.layers.0.mlp.gate.weight.extra", ""})
    EXPECT_FALSE(is_expert_tensor(olmoe, name)) << name;
  const ModelConfig mixtral = parsed(base("mixtral"));
  EXPECT_TRUE(is_expert_tensor(mixtral, "model.layers.1.block_sparse_moe.experts.0.w1.weight"));
  EXPECT_TRUE(is_expert_tensor(mixtral, "model.layers.1.block_sparse_moe.gate.weight"));
  EXPECT_TRUE(is_expert_tensor(mixtral, "model.layers.1.mlp.gate.weight"));
}

}  // namespace
}  // namespace chimera
