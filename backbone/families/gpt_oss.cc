// gpt-oss: attention sinks, alternating sliding and full layers, biases everywhere, softmax over
// the chosen logits, clamped SwiGLU experts, stored plain or as MXFP4.
#include "backbone/families/family.h"

namespace chimera {
namespace {

// Class default of the family: yarn with whole and broken correction bounds alike.
constexpr double kYarnFactor = 32.0;
constexpr int64_t kYarnOriginal = 4096;

void read_rope(ConfigReader& r, ModelConfig& c) {
  if (r.has("rope_scaling") || r.has("rope_parameters")) return;
  if (r.is_null("rope_scaling") || r.is_null("rope_parameters"))
    return r.fail(Code::kUnimplemented,
                  "rope_scaling is null, which releases of the reference read differently",
                  "state rope_parameters with its rope_type");
  c.rope.type = RopeType::kYarn;
  c.rope.factor = kYarnFactor;
  c.rope.original_max_position = kYarnOriginal;
  c.rope.truncate = false;
}

void read_gpt_oss(ConfigReader& r, ModelConfig& c) {
  read_common(r,
              {.rms_norm_eps = 1e-5,
               .rope_theta = 1.5e5,
               .max_position_embeddings = 131072,
               .num_kv_heads = 8,
               .num_experts_per_tok = 4,
               .quant_method = "mxfp4"},
              c);
  read_rope(r, c);
  read_head_dim(r, 64, c);
  c.intermediate_size = r.required("intermediate_size", 1, kMostWidth);
  c.num_experts = r.expert_count(128);
  c.gate_kind = GateKind::kTopKSoftmax;
  c.gate_bias = true;
  c.expert_kind = ExpertKind::kClampedSwiGlu;
  c.attention_sinks = true;
  c.attention_bias = c.attention_output_bias = true;
  if (!r.boolean("attention_bias", true))
    r.refuse("attention_bias", "true (releases of the reference disagree on false)");
  r.refuse_unless("swiglu_limit", {"7", "7.0"}, "7.0 (the reference does not read it)");
  r.ignore("experts_per_token");  // the release states it twice; the reference reads the other

  AttentionMask window{MaskKind::kSliding, 0};
  if (!r.is_null("sliding_window"))
    window.width = r.integer("sliding_window", 128, 1, kMostPositions);
  std::vector<uint8_t> alternating;
  for (int64_t l = 0; l < c.num_layers; ++l) alternating.push_back(l % 2 == 0);
  read_masks(r, "sliding_attention", "sliding_window", window, alternating, c);
}

const TensorNames& gpt_oss_names() {
  static const TensorNames names = [] {
    TensorNames n = common_names();
    n.gate = n.fused_gate = "mlp.router.weight";
    n.gate_bias = "mlp.router.bias";
    n.fused_gate_up_bias = "mlp.experts.gate_up_proj_bias";
    n.fused_down_bias = "mlp.experts.down_proj_bias";
    n.fused_blocks_suffix = "_blocks";
    n.fused_scales_suffix = "_scales";
    n.fused_layout = FusedLayout::kInOutInterleaved;
    return n;
  }();
  return names;
}

}  // namespace

const Family kGptOss = {"gpt_oss", read_gpt_oss, gpt_oss_names};

}  // namespace chimera
