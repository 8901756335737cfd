// Qwen2-MoE and Qwen3-MoE: softmax-topk with optional normalisation, dense layers in between.
// Qwen2 has biases on q, k and v and a gated shared expert; Qwen3 norms queries and keys per head.
#include "backbone/families/family.h"

namespace chimera {
namespace {

void read_qwen3_moe(ConfigReader& r, ModelConfig& c) {
  read_common(r,
              {.rms_norm_eps = 1e-6,
               .rope_theta = 1e4,
               .max_position_embeddings = 32768,
               .num_kv_heads = 4,
               .num_experts_per_tok = 8},
              c);
  read_head_dim(r, 0, c);
  read_attention_bias(r, c);
  read_sparse_layers(r, 768, c);
  c.num_experts = r.expert_count(128);
  c.norm_topk_prob = r.boolean("norm_topk_prob", false);
  c.gate_kind = GateKind::kSoftmaxTopK;
  c.qk_norm = QkNorm::kPerHead;

  // All layers slide or none; the reference does not look at max_window_layers.
  int64_t window = 0;
  r.ignore("sliding_window");  // unless it is switched on
  if (r.boolean("use_sliding_window", false) && !r.is_null("sliding_window"))
    window = r.integer("sliding_window", 4096, 1, kMostPositions);
  if (window > 0) c.masks.assign(static_cast<size_t>(c.num_layers), {MaskKind::kSliding, window});
  r.all_equal("layer_types", window > 0 ? "sliding_attention" : "full_attention");
}

void read_qwen2_moe(ConfigReader& r, ModelConfig& c) {
  read_common(r,
              {.rms_norm_eps = 1e-6,
               .rope_theta = 1e4,
               .max_position_embeddings = 32768,
               .num_kv_heads = 16,
               .num_experts_per_tok = 4},
              c);
  read_head_dim(r, 0, c);
  read_sparse_layers(r, 1408, c);
  c.num_experts = r.expert_count(60);
  c.norm_topk_prob = r.boolean("norm_topk_prob", false);
  c.gate_kind = GateKind::kSoftmaxTopK;
  c.attention_bias = r.boolean("qkv_bias", true);
  c.shared_intermediate_size = r.integer("shared_expert_intermediate_size", 5632, 0, kMostWidth);
  c.shared_gated = c.shared_intermediate_size > 0;
  // Releases of the reference slide different layers.
  r.refuse_unless("use_sliding_window", {"0"},
                  "false (releases of the reference disagree on which "
                  "layers slide)");
  r.ignore("sliding_window");
  r.all_equal("layer_types", "full_attention");
}

const TensorNames& qwen3_moe_names() {
  static const TensorNames names = common_names();
  return names;
}

const TensorNames& qwen2_moe_names() {
  static const TensorNames names = [] {
    TensorNames n = common_names();
    n.shared_prefix = "mlp.shared_expert.";
    n.shared_gate = "mlp.shared_expert_gate.weight";
    return n;
  }();
  return names;
}

}  // namespace

const Family kQwen2Moe = {"qwen2_moe", read_qwen2_moe, qwen2_moe_names};
const Family kQwen3Moe = {"qwen3_moe", read_qwen3_moe, qwen3_moe_names};

}  // namespace chimera
