// Llama and Qwen3: dense decoders. Their feed-forward is the one base expert of every layer, so
// that modules can append experts beside it.
#include "backbone/families/family.h"

namespace chimera {
namespace {

void read_llama(ConfigReader& r, ModelConfig& c) {
  read_common(r, {.rms_norm_eps = 1e-6, .rope_theta = 1e4, .max_position_embeddings = 2048}, c);
  read_head_dim(r, 0, c);
  read_attention_bias(r, c);
  c.intermediate_size = r.required("intermediate_size", 1, kMostWidth);
  c.mlp_bias = r.boolean("mlp_bias", false);
  r.all_equal("layer_types", "full_attention");
  make_dense(c);
}

void read_qwen3(ConfigReader& r, ModelConfig& c) {
  read_common(r,
              {.rms_norm_eps = 1e-6,
               .rope_theta = 1e4,
               .max_position_embeddings = 32768,
               .num_kv_heads = 32},
              c);
  read_head_dim(r, 128, c);
  read_attention_bias(r, c);
  c.intermediate_size = r.required("intermediate_size", 1, kMostWidth);
  c.qk_norm = QkNorm::kPerHead;

  AttentionMask window{MaskKind::kSliding, 0};
  r.ignore("sliding_window");  // unless it is switched on
  if (r.boolean("use_sliding_window", false) && !r.is_null("sliding_window"))
    window.width = r.integer("sliding_window", 4096, 1, kMostPositions);
  const int64_t first = r.integer("max_window_layers", 28, 0, kMostPositions);
  std::vector<uint8_t> sliding;
  for (int64_t l = 0; l < c.num_layers; ++l) sliding.push_back(window.width > 0 && l >= first);
  read_masks(r, "sliding_attention", "sliding_window", window, sliding, c);
  make_dense(c);
}

const TensorNames& dense_names() {
  static const TensorNames names = [] {
    TensorNames n = common_names();
    n.gate = n.fused_gate = "";
    n.expert_prefix = "mlp.";
    n.fused_gate_up = n.fused_down = "";
    return n;
  }();
  return names;
}

}  // namespace

const Family kLlama = {"llama", read_llama, dense_names};
const Family kQwen3 = {"qwen3", read_qwen3, dense_names};

}  // namespace chimera
