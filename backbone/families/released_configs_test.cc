// Configurations as their vendors released them: validation must never be stricter than these. The
// values are facts of the checkpoints, compared with copies of the files in public repositories;
// keys that only training or other programs read are kept, as they must not get in the way. Where a
// file lists its layers one by one, the list is cut and so is the number of layers.
#include <gtest/gtest.h>

#include "backbone/families/model_config.h"

namespace chimera {
namespace {

struct Released {
  const char* name;
  const char* config;
  void (*check)(const ModelConfig& c);
};

void PrintTo(const Released& r, std::ostream* out) { *out << r.name; }

constexpr Released kReleased[] = {
    {"Mixtral_8x7B", R"({
       "architectures": ["MixtralForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 1,
       "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
       "intermediate_size": 14336, "max_position_embeddings": 32768, "model_type": "mixtral",
       "num_attention_heads": 32, "num_experts_per_tok": 2, "num_hidden_layers": 32,
       "num_key_value_heads": 8, "num_local_experts": 8, "output_router_logits": false,
       "rms_norm_eps": 1e-05, "rope_theta": 1000000.0, "router_aux_loss_coef": 0.02,
       "sliding_window": null, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
       "transformers_version": "4.36.0.dev0", "use_cache": true, "vocab_size": 32000})",
     [](const ModelConfig& c) { EXPECT_EQ(c.num_experts, 8); }},
    {"OLMoE_1B_7B", R"({
       "architectures": ["OlmoeForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
       "clip_qkv": null, "eos_token_id": 50279, "hidden_act": "silu", "hidden_size": 2048,
       "initializer_range": 0.02, "intermediate_size": 1024, "max_position_embeddings": 4096,
       "model_type": "olmoe", "norm_topk_prob": false, "num_attention_heads": 16,
       "num_experts": 64, "num_experts_per_tok": 8, "num_hidden_layers": 16,
       "num_key_value_heads": 16, "output_router_logits": false, "pad_token_id": 1,
       "rms_norm_eps": 1e-05, "rope_scaling": null, "rope_theta": 10000.0,
       "router_aux_loss_coef": 0.01, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
       "use_cache": true, "vocab_size": 50304})",
     [](const ModelConfig& c) { EXPECT_EQ(c.num_experts_per_tok, 8); }},
    {"FlexOlmo_7x7B", R"({
       "architectures": ["FlexOlmoForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
       "eos_token_id": 100257, "hidden_act": "silu", "hidden_size": 4096,
       "initializer_range": 0.02, "intermediate_size": 11008, "max_position_embeddings": 4096,
       "model_type": "flex_olmo", "norm_topk_prob": false, "num_attention_heads": 32,
       "num_experts": 7, "num_experts_per_tok": 7, "num_hidden_layers": 32,
       "num_key_value_heads": 32, "output_router_logits": false, "pad_token_id": 100277,
       "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 500000,
       "router_aux_loss_coef": 0.01, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
       "use_cache": true, "vocab_size": 100352})",
     [](const ModelConfig& c) {
       EXPECT_EQ(c.rope.theta, 5e5);
       EXPECT_EQ(c.num_experts_per_tok, c.num_experts);  // every token visits every expert
     }},
    {"Flex_reddit_2x7B", R"({
       "architectures": ["FlexOlmoForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
       "clip_qkv": null, "eos_token_id": 100257, "hidden_act": "silu", "hidden_size": 4096,
       "intermediate_size": 11008, "max_position_embeddings": 4096, "model_type": "flex_olmo",
       "num_attention_heads": 32, "num_experts": 2, "num_experts_per_tok": 2,
       "num_hidden_layers": 32, "num_key_value_heads": 32, "pad_token_id": 100277,
       "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 500000,
       "tie_word_embeddings": false, "use_cache": true, "vocab_size": 100352})",
     [](const ModelConfig& c) { EXPECT_EQ(c.num_experts, 2); }},
    {"Qwen15_MoE_A27B", R"({
       "architectures": ["Qwen2MoeForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643,
       "eos_token_id": 151643, "hidden_act": "silu", "hidden_size": 2048,
       "initializer_range": 0.02, "intermediate_size": 5632, "max_position_embeddings": 8192,
       "max_window_layers": 21, "model_type": "qwen2_moe", "num_attention_heads": 16,
       "num_hidden_layers": 24, "num_key_value_heads": 16, "rms_norm_eps": 1e-06,
       "rope_theta": 1000000.0, "sliding_window": 32768, "tie_word_embeddings": false,
       "torch_dtype": "bfloat16", "use_cache": true, "use_sliding_window": false,
       "vocab_size": 151936, "decoder_sparse_step": 1, "moe_intermediate_size": 1408,
       "shared_expert_intermediate_size": 5632, "num_experts_per_tok": 4, "num_experts": 60,
       "norm_topk_prob": false, "output_router_logits": false, "router_aux_loss_coef": 0.001})",
     [](const ModelConfig& c) { EXPECT_EQ(c.masks[0], AttentionMask{}); }},
    {"Qwen3_30B_A3B", R"({
       "architectures": ["Qwen3MoeForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
       "bos_token_id": 151643, "decoder_sparse_step": 1, "eos_token_id": 151645, "head_dim": 128,
       "hidden_act": "silu", "hidden_size": 2048, "initializer_range": 0.02,
       "intermediate_size": 6144, "max_position_embeddings": 40960, "max_window_layers": 48,
       "mlp_only_layers": [], "model_type": "qwen3_moe", "moe_intermediate_size": 768,
       "norm_topk_prob": true, "num_attention_heads": 32, "num_experts": 128,
       "num_experts_per_tok": 8, "num_hidden_layers": 48, "num_key_value_heads": 4,
       "output_router_logits": false, "rms_norm_eps": 1e-06, "rope_scaling": null,
       "rope_theta": 1000000.0, "router_aux_loss_coef": 0.001, "sliding_window": null,
       "tie_word_embeddings": false, "torch_dtype": "bfloat16", "use_cache": true,
       "use_sliding_window": false, "vocab_size": 151936})",
     [](const ModelConfig& c) { EXPECT_TRUE(c.norm_topk_prob); }},
    {"Qwen3_8B_yarn", R"({
       "architectures": ["Qwen3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
       "bos_token_id": 151643, "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu",
       "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 12288,
       "max_position_embeddings": 40960, "max_window_layers": 36, "model_type": "qwen3",
       "num_attention_heads": 32, "num_hidden_layers": 36, "num_key_value_heads": 8,
       "rms_norm_eps": 1e-06, "rope_scaling": {"rope_type": "yarn", "factor": 4.0,
       "original_max_position_embeddings": 32768}, "rope_theta": 1000000, "sliding_window": null,
       "tie_word_embeddings": false, "torch_dtype": "bfloat16", "use_cache": true,
       "use_sliding_window": false, "vocab_size": 151936})",
     [](const ModelConfig& c) { EXPECT_EQ(c.rope.type, RopeType::kYarn); }},
    {"DeepSeek_V2_Lite", R"({
       "architectures": ["DeepseekV2ForCausalLM"], "attention_bias": false,
       "attention_dropout": 0.0, "auto_map": {"AutoConfig": "configuration_deepseek.X"},
       "aux_loss_alpha": 0.001, "bos_token_id": 100000, "eos_token_id": 100001,
       "first_k_dense_replace": 1, "hidden_act": "silu", "hidden_size": 2048,
       "initializer_range": 0.02, "intermediate_size": 10944, "kv_lora_rank": 512,
       "max_position_embeddings": 163840, "model_type": "deepseek_v2",
       "moe_intermediate_size": 1408, "moe_layer_freq": 1, "n_group": 1, "n_routed_experts": 64,
       "n_shared_experts": 2, "norm_topk_prob": false, "num_attention_heads": 16,
       "num_experts_per_tok": 6, "num_hidden_layers": 27, "num_key_value_heads": 16,
       "pretraining_tp": 1, "q_lora_rank": null, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
       "rms_norm_eps": 1e-06, "rope_scaling": {"beta_fast": 32, "beta_slow": 1, "factor": 40,
       "mscale": 0.707, "mscale_all_dim": 0.707, "original_max_position_embeddings": 4096,
       "type": "yarn"}, "rope_theta": 10000, "routed_scaling_factor": 1.0,
       "scoring_func": "softmax", "seq_aux": true, "tie_word_embeddings": false, "topk_group": 1,
       "topk_method": "greedy", "torch_dtype": "bfloat16", "use_cache": true, "v_head_dim": 128,
       "vocab_size": 102400})",
     [](const ModelConfig& c) { EXPECT_EQ(c.mla->q_lora_rank, 0); }},
    {"DeepSeek_V31", R"({
       "architectures": ["DeepseekV3ForCausalLM"], "attention_bias": false,
       "attention_dropout": 0.0, "auto_map": {"AutoConfig": "configuration_deepseek.X"},
       "bos_token_id": 0, "eos_token_id": 1, "ep_size": 1, "first_k_dense_replace": 3,
       "hidden_act": "silu", "hidden_size": 7168, "initializer_range": 0.02,
       "intermediate_size": 18432, "kv_lora_rank": 512, "max_position_embeddings": 163840,
       "model_type": "deepseek_v3", "moe_intermediate_size": 2048, "moe_layer_freq": 1,
       "n_group": 8, "n_routed_experts": 256, "n_shared_experts": 1, "norm_topk_prob": true,
       "num_attention_heads": 128, "num_experts_per_tok": 8, "num_hidden_layers": 61,
       "num_key_value_heads": 128, "num_nextn_predict_layers": 1, "q_lora_rank": 1536,
       "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "quantization_config":
       {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
       "scale_fmt": "ue8m0", "weight_block_size": [128, 128]}, "rms_norm_eps": 1e-06,
       "rope_scaling": {"beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 1.0,
       "mscale_all_dim": 1.0, "original_max_position_embeddings": 4096, "type": "yarn"},
       "rope_theta": 10000, "routed_scaling_factor": 2.5, "scoring_func": "sigmoid",
       "tie_word_embeddings": false, "topk_group": 4, "topk_method": "noaux_tc",
       "torch_dtype": "bfloat16", "use_cache": true, "v_head_dim": 128, "vocab_size": 129280})",
     [](const ModelConfig& c) { EXPECT_EQ(c.quant_method, "fp8"); }},
    {"Kimi_K2", R"({
       "architectures": ["DeepseekV3ForCausalLM"], "attention_bias": false,
       "attention_dropout": 0.0, "aux_loss_alpha": 0.001, "bos_token_id": 163584,
       "eos_token_id": 163585, "ep_size": 1, "first_k_dense_replace": 1, "hidden_act": "silu",
       "hidden_size": 7168, "initializer_range": 0.02, "intermediate_size": 18432,
       "kv_lora_rank": 512, "max_position_embeddings": 131072, "model_type": "kimi_k2",
       "moe_intermediate_size": 2048, "moe_layer_freq": 1, "n_group": 1, "n_routed_experts": 384,
       "n_shared_experts": 1, "norm_topk_prob": true, "num_attention_heads": 64,
       "num_experts_per_tok": 8, "num_hidden_layers": 61, "num_key_value_heads": 64,
       "num_nextn_predict_layers": 0, "pretraining_tp": 1, "q_lora_rank": 1536,
       "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "quantization_config":
       {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
       "weight_block_size": [128, 128]}, "rms_norm_eps": 1e-06, "rope_scaling":
       {"beta_fast": 1.0, "beta_slow": 1.0, "factor": 32.0, "mscale": 1.0, "mscale_all_dim": 1.0,
       "original_max_position_embeddings": 4096, "type": "yarn"}, "rope_theta": 50000.0,
       "routed_scaling_factor": 2.827, "scoring_func": "sigmoid", "seq_aux": true,
       "tie_word_embeddings": false, "topk_group": 1, "topk_method": "noaux_tc",
       "torch_dtype": "bfloat16", "use_cache": true, "v_head_dim": 128, "vocab_size": 163840})",
     [](const ModelConfig& c) {
       EXPECT_EQ(c.model_type, "deepseek_v3");
       EXPECT_EQ(c.num_experts, 384);
       EXPECT_EQ(layer_tensor(c, 1, tensor_names(c).score_correction),
                 "model.layers.1.mlp.gate.e_score_correction_bias");
     }},
    {"Llama_4_Scout", R"({
       "architectures": ["Llama4ForConditionalGeneration"], "boi_token_index": 200080,
       "eoi_token_index": 200081, "image_token_index": 200092, "model_type": "llama4",
       "text_config": {"_attn_implementation_autoset": true, "attention_bias": false,
       "attention_chunk_size": 8192, "attention_dropout": 0.0, "bos_token_id": 200000,
       "eos_token_id": [200001, 200007, 200008], "for_llm_compressor": false, "head_dim": 128,
       "hidden_act": "silu", "hidden_size": 5120, "initializer_range": 0.02,
       "interleave_moe_layer_step": 1, "intermediate_size": 8192, "intermediate_size_mlp": 16384,
       "max_position_embeddings": 10485760, "model_type": "llama4_text", "no_rope_layers": [],
       "num_attention_heads": 40, "num_experts_per_tok": 1, "num_hidden_layers": 48,
       "num_key_value_heads": 8, "num_local_experts": 16, "output_router_logits": false,
       "pad_token_id": 200018, "rms_norm_eps": 1e-05, "rope_scaling": {"factor": 16.0,
       "high_freq_factor": 1.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 8192,
       "rope_type": "llama3"}, "rope_theta": 500000.0, "router_aux_loss_coef": 0.001,
       "router_jitter_noise": 0.0, "torch_dtype": "bfloat16", "use_cache": true,
       "use_qk_norm": true, "vocab_size": 202048}, "torch_dtype": "bfloat16",
       "vision_config": {"hidden_act": "gelu", "rope_theta": 10000, "vocab_size": 1}})",
     [](const ModelConfig& c) {
       EXPECT_EQ(c.rope.high_freq_factor, 1.0);
       EXPECT_EQ(c.rope.low_freq_factor, 1.0);
       EXPECT_EQ(c.max_position_embeddings, 10485760);
     }},
    {"Llama_4_Maverick", R"({
       "architectures": ["Llama4ForConditionalGeneration"], "boi_token_index": 200080,
       "eoi_token_index": 200081, "image_token_index": 200092, "model_type": "llama4",
       "text_config": {"_attn_implementation_autoset": true, "attention_bias": false,
       "attention_chunk_size": 8192, "attention_dropout": 0.0, "bos_token_id": 200000,
       "eos_token_id": [200001, 200007, 200008], "for_llm_compressor": false, "head_dim": 128,
       "hidden_act": "silu", "hidden_size": 5120, "initializer_range": 0.02,
       "interleave_moe_layer_step": 2, "intermediate_size": 8192, "intermediate_size_mlp": 16384,
       "max_position_embeddings": 1048576, "model_type": "llama4_text",
       "num_attention_heads": 40, "num_experts_per_tok": 1, "num_hidden_layers": 48,
       "num_key_value_heads": 8, "num_local_experts": 128, "output_router_logits": false,
       "pad_token_id": 200018, "rms_norm_eps": 1e-05, "rope_scaling": null,
       "rope_theta": 500000.0, "router_aux_loss_coef": 0.001, "router_jitter_noise": 0.0,
       "torch_dtype": "bfloat16", "use_cache": true, "use_qk_norm": false, "vocab_size": 202048},
       "torch_dtype": "bfloat16", "transformers_version": "4.51.0.dev0", "vision_config": {}})",
     [](const ModelConfig& c) {
       EXPECT_TRUE(c.temperature_tuning.has_value());  // on where nothing is said
       for (size_t layer = 0; layer < 48; ++layer) EXPECT_EQ(c.moe_layers.at(layer), layer % 2);
     }},
    {"Llama_4_Maverick_saved_again", R"({
       "architectures": ["Llama4ForConditionalGeneration"], "model_type": "llama4",
       "text_config": {"attention_bias": false, "attention_chunk_size": 8192,
       "attn_scale": 0.1, "attn_temperature_tuning": 4, "floor_scale": 8192, "bos_token_id": 200000,
       "eos_token_id": [200001, 200007, 200008], "head_dim": 128, "hidden_act": "silu",
       "hidden_size": 5120, "interleave_moe_layer_step": 2, "intermediate_size": 8192,
       "intermediate_size_mlp": 16384, "max_position_embeddings": 1048576,
       "model_type": "llama4_text", "moe_layers": [1, 3], "no_rope_layers": [1, 1, 1, 0],
       "num_attention_heads": 40, "num_experts_per_tok": 1, "num_hidden_layers": 4,
       "num_key_value_heads": 8, "num_local_experts": 128, "rms_norm_eps": 1e-05,
       "rope_scaling": null, "rope_theta": 500000.0, "use_qk_norm": false, "vocab_size": 202048},
       "vision_config": {}})",
     [](const ModelConfig& c) {
       EXPECT_TRUE(c.temperature_tuning.has_value());
       EXPECT_EQ(c.moe_layers, (std::vector<uint8_t>{0, 1, 0, 1}));
     }},
    {"gpt_oss_20b", R"({
       "architectures": ["GptOssForCausalLM"], "attention_bias": true, "attention_dropout": 0.0,
       "eos_token_id": 200002, "experts_per_token": 4, "head_dim": 64, "hidden_act": "silu",
       "hidden_size": 2880, "initial_context_length": 4096, "initializer_range": 0.02,
       "intermediate_size": 2880, "layer_types": ["sliding_attention", "full_attention"],
       "max_position_embeddings": 131072, "model_type": "gpt_oss", "num_attention_heads": 64,
       "num_experts_per_tok": 4, "num_hidden_layers": 2, "num_key_value_heads": 8,
       "num_local_experts": 32, "output_router_logits": false, "pad_token_id": 199999,
       "quantization_config": {"modules_to_not_convert": ["model.layers.*.self_attn",
       "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"],
       "quant_method": "mxfp4"}, "rms_norm_eps": 1e-05, "rope_scaling": {"beta_fast": 32.0,
       "beta_slow": 1.0, "factor": 32.0, "original_max_position_embeddings": 4096,
       "rope_type": "yarn", "truncate": false}, "rope_theta": 150000,
       "router_aux_loss_coef": 0.9, "sliding_window": 128, "swiglu_limit": 7.0,
       "tie_word_embeddings": false, "use_cache": true, "vocab_size": 201088})",
     [](const ModelConfig& c) { EXPECT_FALSE(c.rope.truncate); }},
    {"Llama_31_8B", R"({
       "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
       "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009], "hidden_act": "silu",
       "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336,
       "max_position_embeddings": 131072, "mlp_bias": false, "model_type": "llama",
       "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
       "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": {"factor": 8.0,
       "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
       "rope_type": "llama3"}, "rope_theta": 500000.0, "tie_word_embeddings": false,
       "torch_dtype": "bfloat16", "use_cache": true, "vocab_size": 128256})",
     [](const ModelConfig& c) { EXPECT_EQ(c.rope.high_freq_factor, 4.0); }},
    {"SmolLM2_135M", R"({
       "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
       "bos_token_id": 0, "eos_token_id": 0, "hidden_act": "silu", "hidden_size": 576,
       "initializer_range": 0.041666666666666664, "intermediate_size": 1536,
       "is_llama_config": true, "max_position_embeddings": 8192, "mlp_bias": false,
       "model_type": "llama", "num_attention_heads": 9, "num_hidden_layers": 30,
       "num_key_value_heads": 3, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
       "rope_interleaved": false, "rope_scaling": null, "rope_theta": 100000,
       "tie_word_embeddings": true, "torch_dtype": "bfloat16",
       "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}}, "use_cache": true,
       "vocab_size": 49152})",
     [](const ModelConfig& c) { EXPECT_TRUE(c.tie_word_embeddings); }},
};

class ReleasedConfigs : public testing::TestWithParam<Released> {};

TEST_P(ReleasedConfigs, IsRead) {
  const auto config = parse_model_config(GetParam().config, GetParam().name);
  ASSERT_TRUE(config.ok()) << config.status().to_string();
  GetParam().check(*config);
}

INSTANTIATE_TEST_SUITE_P(Vendors, ReleasedConfigs, testing::ValuesIn(kReleased),
                         [](const auto& released) { return std::string(released.param.name); });

TEST(ReleasedConfigs, AKeyThatStandsTwiceCountsAsTheReferenceReadsIt) {
  const auto config = parse_model_config(
      R"({"model_type": "olmoe", "hidden_size": 64, "intermediate_size": 16,
          "num_hidden_layers": 1, "num_attention_heads": 4, "vocab_size": 7, "vocab_size": 320})",
      "config.json");
  ASSERT_TRUE(config.ok()) << config.status().to_string();
  EXPECT_EQ(config->vocab_size, 320);
}

struct Foreign {
  const char* config;
  const char* nearest;
};

TEST(ForeignFamilies, AreRefusedWithTheNearestSupportedOne) {
  constexpr Foreign kForeign[] = {
      {R"({"model_type": "deepseek_vl_v2"})", "deepseek_v3"},
      {R"({"model_type": "deepseek_v32"})", "deepseek_v3"},
      {R"({"model_type": "kimi_k25"})", "deepseek_v3"},
      {R"({"model_type": "qwen3_next"})", "qwen3_moe"},
      {R"({"model_type": "mistral"})", "llama"},
      {R"({"model_type": "phimoe"})", "mixtral"},
      {R"({"model_type": "lama"})", "llama"},
      {R"({"model_type": "Mixtral"})", "mixtral"},
      {R"({"model_type": "own", "architectures": ["OlmoeForCausalLM"]})", "olmoe"},
  };
  for (const Foreign& f : kForeign) {
    const auto config = parse_model_config(f.config, "config.json");
    ASSERT_EQ(config.status().code(), Code::kUnimplemented) << f.config;
    EXPECT_NE(config.status().to_string().find("nearest supported family is " +
                                               std::string(f.nearest) + ","),
              std::string::npos)
        << config.status().to_string();
  }
  const auto bert = parse_model_config(R"({"model_type": "bert", "architectures": 3})", "c");
  EXPECT_EQ(bert.status().to_string().find("nearest"), std::string::npos);
}

}  // namespace
}  // namespace chimera
