// Compiled from the configuration classes of the published families; a key belongs here when some
// family's forward pass depends on it. Sizes alone do not: a wrong one shows in a tensor's shape.
#include "backbone/families/numeric_keys.h"

#include <algorithm>
#include <array>
#include <string>

namespace chimera {
namespace {

using enum Harmless;

constexpr NumericKey kKeys[] = {
    // --- which keys a query sees
    // ------------------------------------------------------------------
    {"sliding_window", kNothing, "a sliding window", "use_sliding_window"},
    {"use_sliding_window", kOff, "a sliding window"},
    {"sliding_window_size", kOff, "a sliding window"},
    {"sliding_window_layers", kOff, "a sliding window"},
    {"attention_window_size", kOff, "a sliding window"},
    {"window_length", kOff, "a sliding window"},
    {"loop_window_size", kOff, "a sliding window"},
    {"attention_chunk_size", kNothing, "attention in chunks"},
    {"use_bidirectional_attention", kOff, "attention to later tokens"},
    {"is_causal", kOn, "attention to later tokens"},
    {"is_encoder_decoder", kOff, "an encoder"},
    {"add_cross_attention", kOff, "cross attention"},
    {"cross_attention_layers", kOff, "cross attention"},
    {"index_topk", kOff, "sparse attention by an indexer"},
    {"index_n_heads", kOff, "sparse attention by an indexer"},
    {"index_head_dim", kOff, "sparse attention by an indexer"},
    {"index_topk_freq", kOff, "sparse attention by an indexer"},
    {"compress_ratios", kOff, "attention to compressed keys"},
    {"sparse_attention_config", kNothing, "sparse attention"},
    {"sparse_attn_config", kNothing, "sparse attention"},
    {"sparse_config", kNothing, "sparse attention"},
    {"nsa_config", kNothing, "sparse attention"},
    {"moba_config", kNothing, "sparse attention"},
    {"blocksparse_block_size", kOff, "block-sparse attention"},
    {"dense_attention_every_n_layers", kOff, "block-sparse attention"},
    // --- layers that are no attention
    // --------------------------------------------------------------
    {"linear_attn_config", kNothing, "linear attention"},
    {"linear_num_key_heads", kOff, "linear attention"},
    {"linear_num_value_heads", kOff, "linear attention"},
    {"linear_conv_kernel_dim", kOff, "linear attention"},
    {"full_attention_interval", kOffOrOne, "linear attention"},
    {"full_attn_idxs", kNothing, "layers of several kinds"},
    {"attn_type_list", kNothing, "layers of several kinds"},
    {"attention_method", kNothing, "another attention"},
    {"attn_layer_period", kOffOrOne, "layers of several kinds"},
    {"hybrid_layer_pattern", kNothing, "layers of several kinds"},
    {"hybrid_override_pattern", kNothing, "layers of several kinds"},
    {"layers_block_type", kNothing, "layers of several kinds"},
    {"block_types", kNothing, "layers of several kinds"},
    {"block_configs", kNothing, "layers of several kinds"},
    {"layer_group_size", kOffOrOne, "layers of several kinds"},
    {"mamba_enabled", kOff, "state-space layers"},
    {"mamba_d_state", kOff, "state-space layers"},
    {"mamba_d_conv", kOff, "state-space layers"},
    {"mamba_num_heads", kOff, "state-space layers"},
    {"ssm_state_size", kOff, "state-space layers"},
    {"ssm_cfg", kNothing, "state-space layers"},
    {"state_size", kOff, "state-space layers"},
    {"conv_L_cache", kOff, "convolution layers"},
    {"loop_num", kOffOrOne, "layers run several times"},
    // --- scores and values of attention
    // ------------------------------------------------------------
    {"attn_logit_softcapping", kOff, "capped attention scores"},
    {"attn_logit_softcap", kOff, "capped attention scores"},
    {"attention_logit_softcapping", kOff, "capped attention scores"},
    {"max_attn_value", kOff, "capped attention scores"},
    {"query_pre_attn_scalar", kNothing, "another scale of attention scores"},
    {"attention_multiplier", kNothing, "another scale of attention scores"},
    {"mup_attn_multiplier", kOne, "another scale of attention scores"},
    {"attn_output_multiplier", kOne, "scaled attention outputs"},
    {"attention_value_scale", kOne, "scaled values"},
    {"attn_temperature_tuning", kOff, "queries scaled by position"},
    {"attn_scale", kNothing, "queries scaled by position", "attn_temperature_tuning"},
    {"floor_scale", kNothing, "queries scaled by position", "attn_temperature_tuning"},
    {"use_logn_attn", kOff, "queries scaled by position"},
    {"use_dynamic_ntk", kOff, "rotation by the text's length"},
    {"use_qk_norm", kQkNorm, "normed queries and keys"},
    {"qk_norm", kQkNorm, "normed queries and keys"},
    {"qk_layernorm", kQkNorm, "normed queries and keys"},
    {"use_qk_layernorm", kQkNorm, "normed queries and keys"},
    {"normalize_qk_projections", kQkNorm, "normed queries and keys"},
    {"clip_qkv", kNothing, "clipped queries, keys and values"},
    {"use_attention_sinks", kOff, "attention sinks"},
    {"add_swa_attention_sink_bias", kOff, "attention sinks"},
    {"add_full_attention_sink_bias", kOff, "attention sinks"},
    {"attn_output_gate", kOff, "gated attention"},
    {"gated_attention", kOff, "gated attention"},
    {"use_gated_attention", kOff, "gated attention"},
    {"use_head_wise_attn_gate", kOff, "gated attention"},
    {"attention_k_eq_v", kOff, "keys used as values"},
    {"use_cla", kOff, "keys and values shared between layers"},
    {"cla_share_factor", kOffOrOne, "keys and values shared between layers"},
    {"num_kv_shared_layers", kOff, "keys and values shared between layers"},
    {"num_kv_reuse_layers", kOff, "keys and values shared between layers"},
    {"mla_scale_q_lora", kOff, "scaled latents"},
    {"mla_scale_kv_lora", kOff, "scaled latents"},
    // --- positions
    // ---------------------------------------------------------------------------------
    {"position_embedding_type", kRotary, "positions without rotation"},
    {"alibi", kOff, "positions as a bias"},
    {"use_alibi", kOff, "positions as a bias"},
    {"use_rope", kOn, "positions without rotation"},
    {"mla_use_nope", kOff, "positions without rotation"},
    {"no_rope_layers", kOff, "layers without rotation"},
    {"no_rope_layer_interval", kOff, "layers without rotation"},
    {"nope_layer_interval", kOff, "layers without rotation"},
    {"partial_rotary_factor", kOne, "some channels not rotated"},
    {"partial_rotary_factors", kNothing, "some channels not rotated"},
    {"global_partial_rotary_factor", kOne, "some channels not rotated"},
    {"rotary_pct", kOne, "some channels not rotated"},
    {"rotary_percent", kOne, "some channels not rotated"},
    {"rope_pct", kOne, "some channels not rotated"},
    {"rope_percent", kOne, "some channels not rotated"},
    {"rotary_dim", kRotaryWidth, "some channels not rotated"},
    {"rotary_emb_base", kNothing, "another rotation"},
    {"rope_embedding_base", kNothing, "another rotation"},
    {"rope_ratio", kOne, "another rotation"},
    {"rope_position_scale", kOne, "another rotation"},
    {"rope_local_base_freq", kNothing, "another rotation in some layers"},
    {"local_rope_theta", kNothing, "another rotation in some layers"},
    {"global_rope_theta", kNothing, "another rotation in some layers"},
    {"swa_rope_theta", kNothing, "another rotation in some layers"},
    {"rope_interleave", kInterleaved, "another pairing of the rotated channels"},
    {"rope_interleaved", kInterleaved, "another pairing of the rotated channels"},
    {"rope_traditional", kInterleaved, "another pairing of the rotated channels"},
    // --- biases
    // ------------------------------------------------------------------------------------
    {"attention_bias", kOff, "biases of attention"},
    {"attention_out_bias", kOff, "biases of attention"},
    {"attention_qkv_bias", kOff, "biases of attention"},
    {"add_qkv_bias", kOff, "biases of attention"},
    {"use_qkv_bias", kOff, "biases of attention"},
    {"qkv_bias", kOff, "biases of attention"},
    {"mlp_bias", kOff, "biases of feed-forwards"},
    {"bias", kOff, "biases"},
    {"use_bias", kOff, "biases"},
    {"add_bias_linear", kOff, "biases"},
    {"no_bias", kOn, "biases"},
    {"layer_norm_bias", kOff, "biases of norms"},
    {"lm_head_bias", kOff, "a bias of the head"},
    {"head_bias", kOff, "a bias of the head"},
    // --- norms, residuals, embedding and head
    // ------------------------------------------------------
    {"use_rmsnorm", kOn, "another norm"},
    {"use_rms_norm", kOn, "another norm"},
    {"add_unit_offset", kOff, "norms with an offset"},
    {"rms_norm_add_unit_offset", kOff, "norms with an offset"},
    {"zero_centered_gamma", kOff, "norms with an offset"},
    {"layernorm_zero_centered_gamma", kOff, "norms with an offset"},
    {"use_parallel_residual", kOff, "attention and feed-forward side by side"},
    {"parallel_residual", kOff, "attention and feed-forward side by side"},
    {"parallel_attn", kOff, "attention and feed-forward side by side"},
    {"sandwich_norm", kOff, "other places of the norms"},
    {"post_norm", kOff, "other places of the norms"},
    {"apply_residual_connection_post_layernorm", kOff, "other places of the norms"},
    {"residual_multiplier", kOne, "scaled residuals"},
    {"layernorm_full_attention_alpha", kOne, "scaled residuals"},
    {"layernorm_full_attention_beta", kOne, "scaled residuals"},
    {"layernorm_linear_attention_alpha", kOne, "scaled residuals"},
    {"layernorm_linear_attention_beta", kOne, "scaled residuals"},
    {"layernorm_mlp_alpha", kOne, "scaled residuals"},
    {"layernorm_mlp_beta", kOne, "scaled residuals"},
    {"scale_depth", kNothing, "scaled residuals"},
    {"hc_mult", kOffOrOne, "several residual streams"},
    {"altup_num_inputs", kOffOrOne, "several residual streams"},
    {"laurel_rank", kOff, "several residual streams"},
    {"embedding_multiplier", kOne, "scaled embeddings"},
    {"embedding_multiplier_scale", kOne, "scaled embeddings"},
    {"mup_embedding_multiplier", kOne, "scaled embeddings"},
    {"embed_scale", kOne, "scaled embeddings"},
    {"scale_emb", kOne, "scaled embeddings"},
    {"scale_embedding", kOff, "scaled embeddings"},
    {"scale_embeddings", kOff, "scaled embeddings"},
    {"embeddings_scale_by_sqrt_dim", kOff, "scaled embeddings"},
    {"hidden_size_per_layer_input", kOff, "embeddings of every layer"},
    {"vocab_size_per_layer_input", kOff, "embeddings of every layer"},
    {"ngram_vocab_size_ratio", kOff, "embeddings of several tokens"},
    {"emb_neighbor_num", kOff, "embeddings of several tokens"},
    {"logit_scale", kOne, "scaled logits"},
    {"logits_scaling", kOne, "scaled logits"},
    {"lm_head_multiplier", kOne, "scaled logits"},
    {"output_multiplier_scale", kOne, "scaled logits"},
    {"dim_model_base", kNothing, "scaled logits"},
    {"mup_width_multiplier", kOne, "scaled logits"},
    {"norm_head", kOff, "a normed head"},
    {"final_logit_softcapping", kOff, "capped logits"},
    {"final_logit_softcap", kOff, "capped logits"},
    {"logits_soft_cap", kOff, "capped logits"},
    {"mup_enabled", kOff, "scaled weights"},
    {"mup_use_scaling", kOff, "scaled weights"},
    {"key_multiplier", kOne, "scaled keys"},
    {"attention_in_multiplier", kOne, "scaled attention inputs"},
    {"attention_out_multiplier", kOne, "scaled attention outputs"},
    {"mlp_multipliers", kNothing, "scaled feed-forwards"},
    {"ssm_multipliers", kNothing, "state-space layers"},
    // --- feed-forward
    // ------------------------------------------------------------------------------
    {"hidden_activation", kSilu, "another activation"},
    {"activation_function", kSilu, "another activation"},
    {"mlp_hidden_act", kSilu, "another activation"},
    {"moe_gate_act", kSilu, "another activation"},
    {"gegelu_limit", kOff, "a clamped activation"},
    {"swiglu_limit", kOff, "a clamped activation"},
    {"swiglu_limits", kOff, "a clamped activation"},
    {"swiglu_limits_shared", kOff, "a clamped activation"},
    {"swiglu_alpha", kNothing, "another activation"},
    {"activation_sparsity_pattern", kOff, "sparse activations"},
    {"use_double_wide_mlp", kOff, "another feed-forward"},
    {"ffn_with_glu", kOn, "a feed-forward without gate"},
    {"use_mixed_mlp_moe", kOff, "a dense feed-forward beside the experts"},
    {"enable_moe_block", kOff, "a dense feed-forward beside the experts"},
    {"moe_latent_size", kOff, "experts in a latent space"},
    // --- router
    // ------------------------------------------------------------------------------------
    {"scoring_func", kScores, "other scores of experts"},
    {"score_func", kScores, "other scores of experts"},
    {"score_function", kScores, "other scores of experts"},
    {"moe_router_score_func", kScores, "other scores of experts"},
    {"moe_router_activation_func", kScores, "other scores of experts"},
    {"router_scoring_func", kScores, "other scores of experts"},
    {"routed_scaling_factor", kOne, "scaled outputs of experts"},
    {"moe_routed_scaling_factor", kOne, "scaled outputs of experts"},
    {"moe_router_scaling_factor", kOne, "scaled outputs of experts"},
    {"moe_router_topk_scaling_factor", kOne, "scaled outputs of experts"},
    {"router_scaling_factor", kOne, "scaled outputs of experts"},
    {"route_scale", kOne, "scaled outputs of experts"},
    {"moe_router_enable_routed_scaling", kOff, "scaled outputs of experts"},
    {"norm_topk_prob", kNormalised, "other weights of the chosen experts"},
    {"moe_renormalize", kNormalised, "other weights of the chosen experts"},
    {"norm_expert_weight", kNormalised, "other weights of the chosen experts"},
    {"route_norm", kNormalised, "other weights of the chosen experts"},
    {"use_expert_bias", kCorrection, "a correction bias of the router"},
    {"use_routing_bias", kCorrection, "a correction bias of the router"},
    {"moe_router_enable_expert_bias", kCorrection, "a correction bias of the router"},
    {"moe_use_aux_free", kCorrection, "a correction bias of the router"},
    {"router_bias", kOff, "a bias of the router"},
    {"use_router_bias", kOff, "a bias of the router"},
    {"moe_router_logit_softcapping", kOff, "capped router logits"},
    {"router_logit_softcapping", kOff, "capped router logits"},
    {"topk_method", kGreedy, "another choice of experts"},
    {"use_grouped_topk", kGrouped, "experts chosen by groups"},
    {"n_group", kOffOrOne, "experts chosen by groups"},
    {"topk_group", kOffOrOne, "experts chosen by groups"},
    {"num_expert_group", kOffOrOne, "experts chosen by groups"},
    {"zero_expert_num", kOff, "experts that compute nothing"},
    {"num_hash_layers", kOff, "experts chosen by token"},
    {"moe_k", kTopK, "another number of experts per token"},
    {"moe_topk", kTopK, "another number of experts per token"},
    {"moe_top_k", kTopK, "another number of experts per token"},
    {"top_k_experts", kTopK, "another number of experts per token"},
    {"num_experts_per_token", kTopK, "another number of experts per token"},
    {"experts_per_token", kTopK, "another number of experts per token"},
    // --- which layers have experts, and beside what
    // ------------------------------------------------
    {"num_experts", kOffOrOne, "a mixture of experts"},
    {"num_local_experts", kOffOrOne, "a mixture of experts"},
    {"n_routed_experts", kOffOrOne, "a mixture of experts"},
    {"moe_num_experts", kOffOrOne, "a mixture of experts"},
    {"n_shared_experts", kShared, "shared experts"},
    {"num_shared_experts", kShared, "shared experts"},
    {"num_shared_expert", kShared, "shared experts"},
    {"moe_num_shared_experts", kShared, "shared experts"},
    {"moe_router_enable_shared_expert", kShared, "shared experts"},
    {"shared_expert_intermediate_size", kShared, "shared experts"},
    {"moe_shared_expert_intermediate_size", kShared, "shared experts"},
    {"shared_intermediate_size", kShared, "shared experts"},
    {"share_expert_dim", kShared, "shared experts"},
    {"first_k_dense_replace", kOff, "layers without experts"},
    {"num_dense_layers", kOff, "layers without experts"},
    {"mlp_only_layers", kOff, "layers without experts"},
    {"moe_layers", kNothing, "layers without experts"},
    {"moe_layers_enum", kNothing, "layers without experts"},
    {"moe_layer_start_index", kOff, "layers without experts"},
    {"moe_layer_freq", kOne, "layers without experts"},
    {"moe_layer_interval", kOne, "layers without experts"},
    {"interleave_moe_layer_step", kOne, "layers without experts"},
    {"decoder_sparse_step", kOne, "layers without experts"},
    {"expert_layer_period", kOffOrOne, "layers without experts"},
    {"mlp_layer_types", kNothing, "layers without experts"},
    {"is_moe_layer", kNothing, "layers without experts"},
    // --- how weights are stored
    // --------------------------------------------------------------------
    {"quantization", kOff, "quantised weights"},
    {"quantization_config", kOff, "quantised weights"},
    {"quant_config", kOff, "quantised weights"},
    {"quantize_config", kOff, "quantised weights"},
    {"compression_config", kOff, "compressed weights"},
    {"sparsity_config", kOff, "compressed weights"},
};

constexpr NumericKey kRopeKeys[] = {
    {"alpha", kOne, "another base by length"},
    {"attn_factor", kOne, "scaled attention"},
    {"extrapolation_factor", kOne, "another mix of frequencies"},
    {"llama_4_scaling_beta", kOff, "queries scaled by position"},
    {"long_factor", kNothing, "a factor per frequency"},
    {"short_factor", kNothing, "a factor per frequency"},
    {"long_mscale", kOne, "scaled attention"},
    {"short_mscale", kOne, "scaled attention"},
    {"mrope_section", kNothing, "positions of several axes"},
    {"mrope_interleaved", kOff, "positions of several axes"},
    {"xdrope_section", kNothing, "positions of several axes"},
    {"rope_ratio", kOne, "another rotation"},
};

constexpr std::array<std::string_view, 7> kOffValues = {"false", "0",    "0.0", "[]",
                                                        "{}",    "\"\"", "-0.0"};
constexpr std::array<std::string_view, 3> kOnValues = {"true", "1", "1.0"};
constexpr std::array<std::string_view, 2> kOneValues = {"1", "1.0"};
constexpr std::array<std::string_view, 2> kSiluValues = {"\"silu\"", "\"swish\""};
constexpr std::array<std::string_view, 2> kRotaryValues = {"\"rope\"", "\"rotary\""};

bool one_of(std::string_view value, std::span<const std::string_view> values) {
  return std::find(values.begin(), values.end(), value) != values.end();
}

bool is_switch(std::string_view value, bool on) {
  return on ? one_of(value, kOnValues) : one_of(value, kOffValues);
}

bool scores_by_sigmoid(const ModelConfig& c) {
  return c.gate_kind == GateKind::kTopKSigmoid || c.gate_kind == GateKind::kGroupedSigmoid;
}

}  // namespace

bool asks_for_nothing(Harmless harmless, std::string_view value, const ModelConfig& c) {
  switch (harmless) {
    case kNothing:
      return false;
    case kOff:
      return is_switch(value, false);
    case kOn:
      return is_switch(value, true);
    case kOne:
      return one_of(value, kOneValues);
    case kOffOrOne:
      return is_switch(value, false) || one_of(value, kOneValues);
    case kSilu:
      return one_of(value, kSiluValues);
    case kRotary:
      return one_of(value, kRotaryValues);
    case kGreedy:
      return value == "\"greedy\"";
    case kQkNorm:
      return is_switch(value, c.qk_norm != QkNorm::kNone);
    case kScores:
      return value == (scores_by_sigmoid(c) ? "\"sigmoid\"" : "\"softmax\"");
    case kNormalised:  // the one expert of a dense family has weight 1 either way
      return c.dense_base ||
             is_switch(value, c.norm_topk_prob || c.gate_kind == GateKind::kTopKSoftmax);
    case kCorrection:
      return is_switch(value, c.score_correction);
    case kGrouped:
      return is_switch(value, c.gate_kind == GateKind::kGroupedSigmoid || c.n_group > 1);
    case kTopK:
      return c.dense_base || value == std::to_string(c.num_experts_per_tok);
    case kShared:
      return c.shared_intermediate_size > 0 || is_switch(value, false);
    case kInterleaved:
      return is_switch(value, c.rope_interleaved);
    case kRotaryWidth:
      return value == std::to_string(c.rope_dim == 0 ? c.head_dim : c.rope_dim);
  }
  return false;
}

std::span<const NumericKey> numeric_keys() { return kKeys; }
std::span<const NumericKey> numeric_rope_keys() { return kRopeKeys; }

}  // namespace chimera
