// Mixtral: Llama-type attention, optional sliding window on every layer, normalised softmax-topk.
#include "backbone/family.h"

namespace chimera {
namespace {

void read_mixtral(ConfigReader& r, ModelConfig& c) {
  // Read before the common part, which checks layer_types against it.
  if (r.has("sliding_window"))
    c.sliding_window = r.integer("sliding_window", 0, 1, int64_t{1} << 31);
  read_common(r,
              {.rms_norm_eps = 1e-5,
               .rope_theta = 1e6,
               .max_position_embeddings = 131072,
               .num_kv_heads = 8,
               .num_experts_per_tok = 2},
              c);
  c.num_experts = r.integer("num_local_experts", r.integer("num_experts", 8, 1, 65536), 1, 65536);
  c.norm_topk_prob = true;
  c.gate_kind = GateKind::kSoftmaxTopK;
  if (c.num_heads > 0 && (r.has("head_dim") || c.hidden_size % c.num_heads == 0))
    c.head_dim = r.integer("head_dim", c.hidden_size / c.num_heads, 2, 4096);
  else
    r.fail(Code::kInvalidArgument,
           "hidden_size is " + std::to_string(c.hidden_size) +
               ", no multiple of num_attention_heads " + std::to_string(c.num_heads),
           "give head_dim");
  r.refuse_unless("attention_bias", {"0"}, "false (mixtral has no biases)");
  r.refuse_unless("clip_qkv", {}, "null (mixtral does not clip)");
}

const TensorNames& mixtral_names() {
  static const TensorNames names = {.layer_prefix = "model.layers.{L}.",
                                    .attention_norm = "input_layernorm.weight",
                                    .ffn_norm = "post_attention_layernorm.weight",
                                    .gate = "block_sparse_moe.gate.weight",
                                    .expert_prefix = "block_sparse_moe.experts.{e}.",
                                    .expert_gate = "w1.weight",
                                    .expert_up = "w3.weight",
                                    .expert_down = "w2.weight",
                                    .fused_gate_up = "mlp.experts.gate_up_proj",
                                    .fused_down = "mlp.experts.down_proj",
                                    .fused_gate = "mlp.gate.weight"};
  return names;
}

}  // namespace

const Family kMixtral = {"mixtral", read_mixtral, mixtral_names};

}  // namespace chimera
