// DeepSeek-V2 (arXiv 2405.04434) and V3 (arXiv 2412.19437): multi-head latent attention,
// group-limited top-k, ungated shared experts, dense layers at the start. V2 scores by softmax, V3
// by sigmoids with a correction bias.
#include "backbone/families/family.h"

namespace chimera {
namespace {

void read_latent_attention(ConfigReader& r, ModelConfig& c) {
  MlaConfig mla;
  mla.q_lora_rank = r.is_null("q_lora_rank") ? 0 : r.integer("q_lora_rank", 1536, 1, kMostWidth);
  mla.kv_lora_rank = r.integer("kv_lora_rank", 512, 1, kMostWidth);
  mla.qk_nope_head_dim = r.integer("qk_nope_head_dim", 128, 1, kMostHeadDim);
  mla.qk_rope_head_dim = r.integer("qk_rope_head_dim", 64, 2, kMostHeadDim);
  // head_dim of the file is qk_rope_head_dim, written by newer releases; num_key_value_heads says
  // nothing, because every query head has keys and values of its own.
  c.num_kv_heads = c.num_heads;
  c.head_dim = mla.qk_nope_head_dim + mla.qk_rope_head_dim;
  c.rope_dim = mla.qk_rope_head_dim;
  c.v_head_dim = r.integer("v_head_dim", 128, 1, kMostHeadDim);
  c.mla = mla;
  read_attention_bias(r, c);
  r.all_equal("layer_types", "full_attention");
}

constexpr std::string_view kEveryLayer = "1 (every layer from first_k_dense_replace on)";

void read_dense_layers(ConfigReader& r, int64_t by_default, ModelConfig& c) {
  const int64_t dense = r.integer("first_k_dense_replace", by_default, 0, kMostPositions);
  for (int64_t l = 0; l < c.num_layers; ++l) c.moe_layers.push_back(l >= dense);
  if (dense > 0) c.dense_intermediate_size = r.required("intermediate_size", 1, kMostWidth);
}

void read_router(ConfigReader& r, ModelConfig& c) {
  c.gate_kind = GateKind::kGroupedSigmoid;
  c.score_correction = true;
  c.num_experts = r.expert_count(256);
  c.n_group = r.integer("n_group", 8, 1, kMostExperts);
  c.grouped_experts = r.integer("chimera_grouped_experts", 0, 0, kMostExperts);
  c.topk_group = r.integer("topk_group", 4, 1, kMostExperts);
  c.norm_topk_prob = r.boolean("norm_topk_prob", true);
  c.routed_scaling_factor = static_cast<float>(r.number("routed_scaling_factor", 2.5, 0.0, 1e30));
  r.refuse_unless("scoring_func", {"\"sigmoid\""}, "sigmoid");
  r.refuse_unless("topk_method", {"\"noaux_tc\""}, "noaux_tc");
  r.refuse_unless("moe_layer_freq", {"1"}, kEveryLayer);
}

void read_deepseek_v3(ConfigReader& r, ModelConfig& c) {
  read_common(r,
              {.rms_norm_eps = 1e-6,
               .rope_theta = 1e4,
               .max_position_embeddings = 4096,
               .num_experts_per_tok = 8},
              c);
  read_latent_attention(r, c);
  c.rope_interleaved = r.boolean("rope_interleave", true);
  read_router(r, c);
  read_dense_layers(r, 3, c);
  c.intermediate_size = r.required("moe_intermediate_size", 1, kMostWidth);
  c.shared_intermediate_size =
      c.intermediate_size * r.integer("n_shared_experts", 1, 0, kMostHeadDim);
}

/// V2's reference divides the weights by their sum or multiplies them by routed_scaling_factor;
/// later ports only ever multiply. No released file asks for the former.
void read_softmax_router(ConfigReader& r, ModelConfig& c) {
  c.gate_kind = GateKind::kSoftmaxTopK;
  c.num_experts = r.expert_count(64);
  c.num_experts_per_tok = static_cast<int64_t>(r.required("num_experts_per_tok", 1, kMostExperts));
  c.grouped_experts = r.integer("chimera_grouped_experts", 0, 0, kMostExperts);
  r.refuse_unless("norm_topk_prob", {"0"}, "false (releases of the reference disagree on true)");
  c.routed_scaling_factor = static_cast<float>(r.number("routed_scaling_factor", 1.0, 0.0, 1e30));
  const std::string method = r.text("topk_method", "greedy");
  if (method == "group_limited_greedy") {
    c.n_group = r.required("n_group", 1, kMostExperts);
    c.topk_group = r.required("topk_group", 1, kMostExperts);
  } else if (method == "greedy" || method == "gready") {  // as its own class default spells it
    r.ignore("n_group");
    r.ignore("topk_group");
  } else {
    r.refuse("topk_method", "greedy or group_limited_greedy");
  }
  r.refuse_unless("scoring_func", {"\"softmax\""}, "softmax");
  r.refuse_unless("moe_layer_freq", {"1"}, kEveryLayer);
}

/// The rotation pairs neighbours always, so rope_interleave is no key of V2. The softmax of
/// attention is scaled by mscale_all_dim as in V3: so do the vendor's code and those that run it;
/// the port of Hugging Face leaves it out.
void read_deepseek_v2(ConfigReader& r, ModelConfig& c) {
  read_common(r, {.rms_norm_eps = 1e-6, .rope_theta = 1e4, .max_position_embeddings = 2048}, c);
  read_latent_attention(r, c);
  c.rope_interleaved = true;
  read_softmax_router(r, c);
  read_dense_layers(r, 0, c);
  c.intermediate_size = r.integer("moe_intermediate_size", 1407, 1, kMostWidth);
  const bool unshared = r.is_null("n_shared_experts");
  c.shared_intermediate_size =
      unshared ? 0 : c.intermediate_size * r.integer("n_shared_experts", 2, 0, kMostHeadDim);
}

const TensorNames& deepseek_v2_names() {
  static const TensorNames names = [] {
    TensorNames n = common_names();
    n.shared_prefix = "mlp.shared_experts.";
    return n;
  }();
  return names;
}

const TensorNames& deepseek_v3_names() {
  static const TensorNames names = [] {
    TensorNames n = deepseek_v2_names();
    n.score_correction = "mlp.gate.e_score_correction_bias";
    return n;
  }();
  return names;
}

}  // namespace

const Family kDeepseekV2 = {"deepseek_v2", read_deepseek_v2, deepseek_v2_names};
// Kimi K2: "model_type" differs only so that inference engines can tell the two apart; its vendor
// says to run it as deepseek_v3.
const Family kDeepseekV3 = {"deepseek_v3", read_deepseek_v3, deepseek_v3_names, "kimi_k2"};

}  // namespace chimera
