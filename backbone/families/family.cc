// The table of families and what all of them read alike.
#include "backbone/families/family.h"

#include <algorithm>
#include <array>

namespace chimera {
namespace {

constexpr int64_t kMostVocab = int64_t{1} << 24;
constexpr int64_t kMostLayers = 4096;
constexpr int64_t kMostHeads = 4096;

constexpr std::array kRopeTypes = {RopeType::kDefault, RopeType::kLinear, RopeType::kDynamic,
                                   RopeType::kYarn, RopeType::kLlama3};

}  // namespace

std::span<const RopeType> all_rope_types() { return kRopeTypes; }

std::span<const Family> families() {
  // Built on first use: the order in which the families' own constants are initialised is open.
  static const std::array table = {kDeepseekV2, kDeepseekV3, kFlexOlmo,   kGptOss,
                                   kLlama,      kLlama4,     kLlama4Text, kMixtral,
                                   kOlmoe,      kQwen2Moe,   kQwen3,      kQwen3Moe};
  return table;
}

const Family* find_family(std::string_view model_type) {
  for (const Family& family : families())
    if (family.model_type == model_type || (!family.alias.empty() && family.alias == model_type))
      return &family;
  return nullptr;
}

void read_common(ConfigReader& r, const CommonDefaults& d, ModelConfig& c) {
  c.hidden_size = r.required("hidden_size", 1, kMostWidth);
  c.num_layers = r.required("num_hidden_layers", 1, kMostLayers);
  c.num_heads = r.required("num_attention_heads", 1, kMostHeads);
  const bool one_each = d.num_kv_heads == 0 || r.is_null("num_key_value_heads");
  c.num_kv_heads =
      r.integer("num_key_value_heads", one_each ? c.num_heads : d.num_kv_heads, 1, kMostHeads);
  c.vocab_size = r.required("vocab_size", 1, kMostVocab);
  c.max_position_embeddings =
      r.integer("max_position_embeddings", d.max_position_embeddings, 1, kMostPositions);
  if (d.num_experts_per_tok > 0)
    c.num_experts_per_tok =
        r.integer("num_experts_per_tok", d.num_experts_per_tok, 1, kMostExperts);
  c.rms_norm_eps = static_cast<float>(r.number("rms_norm_eps", d.rms_norm_eps, 0.0, 1.0));
  c.tie_word_embeddings = c.tie_word_embeddings || r.boolean("tie_word_embeddings", false);
  for (int32_t id : r.ids("eos_token_id"))
    if (std::find(c.eos_token_ids.begin(), c.eos_token_ids.end(), id) == c.eos_token_ids.end())
      c.eos_token_ids.push_back(id);
  r.rope(d.rope_theta, d.rope_types, c.max_position_embeddings, c.rope);

  c.quant_method = r.quantization(d.quant_method);
  r.refuse_unless("hidden_act", {"\"silu\"", "\"swish\""}, "silu");

  if (c.num_kv_heads > 0 && c.num_heads % c.num_kv_heads != 0)
    r.fail(Code::kInvalidArgument,
           "num_attention_heads is " + std::to_string(c.num_heads) +
               ", which num_key_value_heads " + std::to_string(c.num_kv_heads) + " does not divide",
           "each key/value head serves a whole group of query heads");
}

void read_head_dim(ConfigReader& r, int64_t fallback, ModelConfig& c) {
  if (c.num_heads == 0) return;
  const bool divided = fallback == 0 || r.is_null("head_dim");
  if (divided && !r.has("head_dim") && c.hidden_size % c.num_heads != 0)
    return r.fail(Code::kInvalidArgument,
                  "hidden_size is " + std::to_string(c.hidden_size) +
                      ", no multiple of num_attention_heads " + std::to_string(c.num_heads),
                  "give head_dim");
  c.head_dim =
      r.integer("head_dim", divided ? c.hidden_size / c.num_heads : fallback, 2, kMostHeadDim);
}

void read_masks(ConfigReader& r, std::string_view type_name, std::string_view width_key,
                AttentionMask restricted, const std::vector<uint8_t>& by_default, ModelConfig& c) {
  std::vector<uint8_t> on = by_default;
  if (const auto types = r.texts("layer_types")) {
    if (static_cast<int64_t>(types->size()) != c.num_layers)
      return r.fail(Code::kInvalidArgument, "layer_types has " + std::to_string(types->size()) +
                                                " entries, expected one for each of the " +
                                                std::to_string(c.num_layers) + " layers");
    on.clear();
    for (const std::string& type : *types) {
      if (type != type_name && type != "full_attention")
        return r.refuse("layer_types", "full_attention and " + std::string(type_name));
      on.push_back(type == type_name);
    }
  }
  for (const uint8_t one : on) {
    if (one != 0 && restricted.width == 0)
      return r.fail(Code::kUnimplemented,
                    std::string(width_key) + " is not in effect, but a layer is of type " +
                        std::string(type_name),
                    "state the width, or full_attention for every layer");
    c.masks.push_back(one != 0 ? restricted : AttentionMask{});
  }
}

void read_attention_bias(ConfigReader& r, ModelConfig& c) {
  c.attention_bias = r.boolean("attention_bias", false);
  c.attention_output_bias = c.attention_bias;
}

void make_dense(ModelConfig& c) {
  c.dense_base = true;
  c.num_experts = 1;
  c.num_experts_per_tok = 1;
  c.norm_topk_prob = true;
  c.gate_kind = GateKind::kSoftmaxTopK;
}

void read_sparse_layers(ConfigReader& r, int64_t default_expert_width, ModelConfig& c) {
  const int64_t step = r.integer("decoder_sparse_step", 1, 1, kMostPositions);
  const std::vector<int64_t> dense =
      r.integers("mlp_only_layers", 0, kMostPositions).value_or(std::vector<int64_t>());
  bool any_dense = false;
  for (int64_t l = 0; l < c.num_layers; ++l) {
    const bool listed = std::find(dense.begin(), dense.end(), l) != dense.end();
    c.moe_layers.push_back(!listed && (l + 1) % step == 0);
    any_dense |= c.moe_layers.back() == 0;
  }
  c.intermediate_size = r.integer("moe_intermediate_size", default_expert_width, 1, kMostWidth);
  if (any_dense) c.dense_intermediate_size = r.required("intermediate_size", 1, kMostWidth);
}

TensorNames common_names() {
  TensorNames names;
  names.layer_prefix = "model.layers.{L}.";
  names.attention_norm = "input_layernorm.weight";
  names.ffn_norm = "post_attention_layernorm.weight";
  names.gate = "mlp.gate.weight";
  names.expert_prefix = "mlp.experts.{e}.";
  names.expert_gate = "gate_proj.weight";
  names.expert_up = "up_proj.weight";
  names.expert_down = "down_proj.weight";
  names.fused_gate_up = "mlp.experts.gate_up_proj";
  names.fused_down = "mlp.experts.down_proj";
  names.fused_gate = "mlp.gate.weight";
  names.dense_prefix = "mlp.";
  return names;
}

}  // namespace chimera
