// OLMoE and FlexOlmo: whole-vector QK norm, softmax-topk gate, every layer a mixture.
// FlexOlmo norms the output of each sub-layer (OLMo 2 block), OLMoE its input.
#include "backbone/families/family.h"

namespace chimera {
namespace {

void read_olmo(ConfigReader& r, const CommonDefaults& defaults, int64_t num_experts,
               ModelConfig& c) {
  read_common(r, defaults, c);
  read_head_dim(r, 0, c);
  read_attention_bias(r, c);
  c.intermediate_size = r.required("intermediate_size", 1, kMostWidth);
  c.num_experts = r.expert_count(num_experts);
  c.norm_topk_prob = r.boolean("norm_topk_prob", false);
  c.gate_kind = GateKind::kSoftmaxTopK;
  c.qk_norm = QkNorm::kWholeVector;
  r.all_equal("layer_types", "full_attention");
}

void read_olmoe(ConfigReader& r, ModelConfig& c) {
  read_olmo(r, {.rms_norm_eps = 1e-5, .rope_theta = 1e4, .num_experts_per_tok = 8}, 64, c);
  c.norm_placement = NormPlacement::kPre;
  if (r.has("clip_qkv")) c.clip_qkv = static_cast<float>(r.number("clip_qkv", 0.0, 0.0, 1e30));
  // Releases of the reference differ in whether they honour the key, so only the agreeing value
  // runs.
  if (c.num_heads > 0 && c.head_dim * c.num_heads != c.hidden_size)
    r.fail(Code::kUnimplemented,
           "head_dim is " + std::to_string(c.head_dim) + "; supported for olmoe is hidden_size / " +
               "num_attention_heads = " + std::to_string(c.hidden_size / c.num_heads));
}

void read_flex_olmo(ConfigReader& r, ModelConfig& c) {
  read_olmo(r, {.rms_norm_eps = 1e-6, .rope_theta = 5e5, .num_experts_per_tok = 5}, 7, c);
  c.norm_placement = NormPlacement::kPost;
}

const TensorNames& olmoe_names() {
  static const TensorNames names = common_names();
  return names;
}

const TensorNames& flex_olmo_names() {
  static const TensorNames names = [] {
    TensorNames n = common_names();
    n.attention_norm = "post_attention_layernorm.weight";
    n.ffn_norm = "post_feedforward_layernorm.weight";
    return n;
  }();
  return names;
}

}  // namespace

const Family kOlmoe = {"olmoe", read_olmoe, olmoe_names};
const Family kFlexOlmo = {"flex_olmo", read_flex_olmo, flex_olmo_names};

}  // namespace chimera
