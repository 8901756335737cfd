// Mixtral: Llama-type attention, optional sliding window on every layer, normalised softmax-topk.
#include "backbone/families/family.h"

namespace chimera {
namespace {

void read_mixtral(ConfigReader& r, ModelConfig& c) {
  read_common(r,
              {.rms_norm_eps = 1e-5,
               .rope_theta = 1e6,
               .max_position_embeddings = 131072,
               .num_kv_heads = 8,
               .num_experts_per_tok = 2},
              c);
  read_head_dim(r, 0, c);
  c.intermediate_size = r.required("intermediate_size", 1, kMostWidth);
  c.num_experts = r.expert_count(8);
  c.norm_topk_prob = true;
  c.gate_kind = GateKind::kSoftmaxTopK;
  const int64_t window = r.integer("sliding_window", 0, 1, kMostPositions);
  if (window > 0) c.masks.assign(static_cast<size_t>(c.num_layers), {MaskKind::kSliding, window});
  r.all_equal("layer_types", window > 0 ? "sliding_attention" : "full_attention");
}

const TensorNames& mixtral_names() {
  static const TensorNames names = [] {
    TensorNames n = common_names();
    n.gate = "block_sparse_moe.gate.weight";  // fused_gate: as transformers 5 renames it
    n.expert_prefix = "block_sparse_moe.experts.{e}.";
    n.expert_gate = "w1.weight";
    n.expert_up = "w3.weight";
    n.expert_down = "w2.weight";
    n.dense_prefix = "";
    return n;
  }();
  return names;
}

}  // namespace

const Family kMixtral = {"mixtral", read_mixtral, mixtral_names};

}  // namespace chimera
