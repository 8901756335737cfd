// Llama 4, text: rotated layers with chunked attention and a weightless QK norm after the rotation,
// others unrotated with temperature tuning; the router's sigmoid scales the expert's input; one
// ungated shared expert. `llama4` is the composite checkpoint whose text part this reads.
#include <array>

#include "backbone/families/family.h"

namespace chimera {
namespace {

// Any scaling is of type llama3 to one release of the reference, whatever it says.
constexpr std::array kLlama4RopeTypes = {RopeType::kDefault, RopeType::kLlama3};

/// no_rope_layers: 1 for a layer with rotation, 0 for one without.
void read_rope_layers(ConfigReader& r, ModelConfig& c) {
  r.ignore("no_rope_layer_interval");  // beside a list that says it
  const auto stated = r.integers("no_rope_layers", 0, 1);
  if (stated && !stated->empty()) {
    if (static_cast<int64_t>(stated->size()) != c.num_layers)
      return r.fail(Code::kInvalidArgument, "no_rope_layers has " + std::to_string(stated->size()) +
                                                " entries, expected one for each of the " +
                                                std::to_string(c.num_layers) + " layers");
    c.rope_layers.assign(stated->begin(), stated->end());
    return;
  }
  const int64_t interval = r.integer("no_rope_layer_interval", 4, 1, kMostPositions);
  for (int64_t l = 0; l < c.num_layers; ++l) c.rope_layers.push_back((l + 1) % interval != 0);
}

void read_llama4_attention(ConfigReader& r, ModelConfig& c) {
  read_head_dim(r, 128, c);
  read_rope_layers(r, c);
  AttentionMask chunked{MaskKind::kChunked, 0};
  if (!r.is_null("attention_chunk_size"))
    chunked.width = r.integer("attention_chunk_size", 8192, 1, kMostPositions);
  read_masks(r, "chunked_attention", "attention_chunk_size", chunked, c.rope_layers, c);
  c.rope_interleaved = true;
  if (r.boolean("use_qk_norm", true)) c.qk_norm = QkNorm::kPerHeadAfterRope;
  if (r.boolean("attn_temperature_tuning", true))
    c.temperature_tuning = {r.number("floor_scale", 8192.0, 0.0, 1e30),
                            r.number("attn_scale", 0.1, -1e30, 1e30)};
  r.refuse_unless("attention_bias", {"0"}, "false (releases of the reference disagree on it)");
}

void read_moe_layers(ConfigReader& r, ModelConfig& c) {
  const int64_t step = r.integer("interleave_moe_layer_step", 1, 1, kMostPositions);
  const auto stated = r.integers("moe_layers", 0, c.num_layers - 1);
  for (int64_t l = 0; l < c.num_layers; ++l) c.moe_layers.push_back(!stated && (l + 1) % step == 0);
  if (stated)
    for (const int64_t l : *stated) c.moe_layers[static_cast<size_t>(l)] = 1;
  for (const uint8_t moe : c.moe_layers)
    if (moe == 0 && c.dense_intermediate_size == 0)
      c.dense_intermediate_size = r.integer("intermediate_size_mlp", 16384, 1, kMostWidth);
}

void read_llama4_text(ConfigReader& r, ModelConfig& c) {
  read_common(r,
              {.rms_norm_eps = 1e-5,
               .rope_theta = 5e5,
               .max_position_embeddings = 131072,
               .num_kv_heads = 8,
               .num_experts_per_tok = 1,
               .rope_types = kLlama4RopeTypes},
              c);
  if (!r.status().ok()) return;
  read_llama4_attention(r, c);
  read_moe_layers(r, c);
  c.num_experts = r.expert_count(16);
  c.intermediate_size = r.required("intermediate_size", 1, kMostWidth);
  c.shared_intermediate_size = c.intermediate_size;
  c.gate_kind = GateKind::kTopKSigmoid;
  c.score_scales_input = true;
}

void read_llama4(ConfigReader& r, ModelConfig& c) {
  const bool stated = r.has("tie_word_embeddings");
  const bool tied = r.boolean("tie_word_embeddings", false);
  c.eos_token_ids = r.ids("eos_token_id");
  r.refuse_unread(c);
  r.descend("text_config");
  if (!r.status().ok()) return;
  const std::string type = r.text("model_type", "llama4_text");
  if (type != "llama4_text") r.refuse("model_type", "llama4_text");
  if (stated && r.has("tie_word_embeddings") && r.boolean("tie_word_embeddings", false) != tied)
    r.refuse("tie_word_embeddings", "the same as tie_word_embeddings beside text_config");
  c.tie_word_embeddings = tied;
  c.tensor_prefix = "language_model.";
  read_llama4_text(r, c);
}

const TensorNames& llama4_names() {
  static const TensorNames names = [] {
    TensorNames n = common_names();
    n.gate = n.fused_gate = "feed_forward.router.weight";
    n.expert_prefix = "feed_forward.experts.{e}.";
    n.fused_gate_up = "feed_forward.experts.gate_up_proj";
    n.fused_down = "feed_forward.experts.down_proj";
    n.fused_layout = FusedLayout::kInOut;
    n.dense_prefix = "feed_forward.";
    n.shared_prefix = "feed_forward.shared_expert.";
    return n;
  }();
  return names;
}

}  // namespace

const Family kLlama4 = {"llama4", read_llama4, llama4_names};
const Family kLlama4Text = {"llama4_text", read_llama4_text, llama4_names};

}  // namespace chimera
