// OLMoE and FlexOlmo: whole-vector QK norm, softmax-topk gate, every layer a mixture.
// FlexOlmo norms the output of each sub-layer (OLMo 2 block), OLMoE its input.
#include "backbone/family.h"

namespace chimera {
namespace {

constexpr int64_t kMostExperts = 65536;

void read_head_dim(ConfigReader& r, ModelConfig& c) {
  if (c.num_heads == 0) return;
  if (c.hidden_size % c.num_heads != 0 && !r.has("head_dim")) {
    r.fail(Code::kInvalidArgument,
           "hidden_size is " + std::to_string(c.hidden_size) +
               ", no multiple of num_attention_heads " + std::to_string(c.num_heads),
           "give head_dim");
    return;
  }
  c.head_dim = r.integer("head_dim", c.hidden_size / c.num_heads, 2, 4096);
}

void read_olmo(ConfigReader& r, const CommonDefaults& defaults, int64_t num_experts,
               ModelConfig& c) {
  read_common(r, defaults, c);
  read_head_dim(r, c);
  c.num_experts = r.integer("num_experts", num_experts, 1, kMostExperts);
  c.norm_topk_prob = r.boolean("norm_topk_prob", false);
  c.attention_bias = r.boolean("attention_bias", false);
  c.gate_kind = GateKind::kSoftmaxTopK;
  c.qk_norm = QkNorm::kWholeVector;
  r.refuse_unless("sliding_window", {}, "null (full attention)");
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
  r.refuse_unless("clip_qkv", {}, "null (flex_olmo does not clip)");
}

TensorNames olmo_names(std::string attention_norm, std::string ffn_norm) {
  return {.layer_prefix = "model.layers.{L}.",
          .attention_norm = std::move(attention_norm),
          .ffn_norm = std::move(ffn_norm),
          .gate = "mlp.gate.weight",
          .expert_prefix = "mlp.experts.{e}.",
          .expert_gate = "gate_proj.weight",
          .expert_up = "up_proj.weight",
          .expert_down = "down_proj.weight",
          .fused_gate_up = "mlp.experts.gate_up_proj",
          .fused_down = "mlp.experts.down_proj",
          .fused_gate = "mlp.gate.weight"};
}

const TensorNames& olmoe_names() {
  static const TensorNames names =
      olmo_names("input_layernorm.weight", "post_attention_layernorm.weight");
  return names;
}

const TensorNames& flex_olmo_names() {
  static const TensorNames names =
      olmo_names("post_attention_layernorm.weight", "post_feedforward_layernorm.weight");
  return names;
}

}  // namespace

const Family kOlmoe = {"olmoe", read_olmoe, olmoe_names};
const Family kFlexOlmo = {"flex_olmo", read_flex_olmo, flex_olmo_names};

}  // namespace chimera
