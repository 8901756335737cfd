#include "backbone/gguf/config.h"

#include <algorithm>
#include <array>

#include "backbone/gguf/config_maker.h"
#include "backbone/gguf/fields.h"
#include "base/json/writer.h"
#include "base/quote.h"

namespace chimera {
namespace {

// expert_gating_func
constexpr int64_t kSoftmax = 1, kSigmoid = 2;

void make_olmoe(GgufConfigMaker& m) {
  m.common("olmoe");
  m.rope();
  m.experts();
  m.gating(kSoftmax, "softmax");
  m.copy("intermediate_size", "feed_forward_length");
  m.config["norm_topk_prob"] = m.boolean("expert_weights_norm").value_or(false);
  if (const auto clip = m.number("attention.clamp_kqv")) m.config["clip_qkv"] = m.decimal(*clip);
}

void make_qwen2_moe(GgufConfigMaker& m) {
  m.common("qwen2_moe");
  m.head_dim();
  m.rope();
  m.experts();
  m.dense_layers();
  m.gating(kSoftmax, "softmax");
  m.copy("intermediate_size", "feed_forward_length");
  m.copy("moe_intermediate_size", "expert_feed_forward_length");
  m.config["shared_expert_intermediate_size"] =
      m.integer("expert_shared_feed_forward_length").value_or(0);
  m.config["qkv_bias"] = m.has_tensor("blk.0.attn_q.bias");
  m.config["norm_topk_prob"] = m.boolean("expert_weights_norm").value_or(false);
}

void make_qwen3_moe(GgufConfigMaker& m) {
  m.common("qwen3_moe");
  m.head_dim();
  m.rope();
  m.experts();
  m.dense_layers();
  m.gating(kSoftmax, "softmax");
  m.config["moe_intermediate_size"] = m.required("expert_feed_forward_length");
  m.copy("intermediate_size", "feed_forward_length");
  m.config["norm_topk_prob"] = m.boolean("expert_weights_norm").value_or(true);
  m.config["attention_bias"] = m.has_tensor("blk.0.attn_q.bias");
}

void make_qwen3(GgufConfigMaker& m) {
  m.common("qwen3");
  m.head_dim();
  m.rope();
  m.config["intermediate_size"] = m.required("feed_forward_length");
  m.config["attention_bias"] = m.has_tensor("blk.0.attn_q.bias");
}

/// Mixtral when it has experts.
void make_llama(GgufConfigMaker& m) {
  const bool routed = m.integer("expert_count").value_or(0) > 0;
  m.common(routed ? "mixtral" : "llama");
  m.head_dim();
  m.rope();
  m.config["intermediate_size"] = m.required("feed_forward_length");
  if (routed) {
    m.gating(kSoftmax, "softmax");
    m.config["num_local_experts"] = m.required("expert_count");
    m.config["num_experts_per_tok"] = m.required("expert_used_count");
    m.copy("sliding_window", "attention.sliding_window");
    return;
  }
  m.config["attention_bias"] = m.has_tensor("blk.0.attn_q.bias");
  m.config["mlp_bias"] = m.has_tensor("blk.0.ffn_gate.bias");
}

/// Whether a deepseek2 model scores by softmax, as DeepSeek-V2 does. Older files do not say: then
/// those without corrections do.
bool scores_by_softmax(GgufConfigMaker& m) {
  const std::string first = std::to_string(m.integer("leading_dense_block_count").value_or(0));
  const bool corrected = m.has_tensor("blk." + first + ".exp_probs_b.bias");
  const int64_t stated = m.integer("expert_gating_func").value_or(0);
  const bool softmax = stated == kSoftmax || (stated == 0 && !corrected);
  if (stated != 0 && stated != kSoftmax && stated != kSigmoid)
    m.refuse(m.key("expert_gating_func") + " is " + std::to_string(stated),
             "1, softmax, or 2, sigmoid");
  else if (softmax == corrected)
    m.refuse(softmax ? "a softmax gate with score corrections" : "a sigmoid gate without them",
             "sigmoids with score corrections, or a softmax without");
  return softmax;
}

/// The gate of DeepSeek-V2: its groups count by their best expert. Files that do not speak of
/// groups choose among all experts.
void softmax_gate(GgufConfigMaker& m) {
  const bool grouped = m.integer("expert_group_count").value_or(1) > 1;
  m.config["topk_method"] = grouped ? "group_limited_greedy" : "greedy";
  m.config["scoring_func"] = "softmax";
}

void make_deepseek(GgufConfigMaker& m) {
  const bool softmax = scores_by_softmax(m);
  m.common(softmax ? "deepseek_v2" : "deepseek_v3");
  m.rope();
  // Multi-head attention lengths stand beside those of the latent form in current files, alone in
  // older ones.
  const int64_t rotated = m.required("rope.dimension_count");
  const int64_t keys =
      m.integer("attention.key_length_mla").value_or(m.integer("attention.key_length").value_or(0));
  const int64_t values = m.integer("attention.value_length_mla")
                             .value_or(m.integer("attention.value_length").value_or(0));
  m.config["q_lora_rank"] = nullptr;
  m.copy("q_lora_rank", "attention.q_lora_rank");
  m.config["kv_lora_rank"] = m.required("attention.kv_lora_rank");
  m.config["qk_rope_head_dim"] = rotated;
  m.config["qk_nope_head_dim"] = keys - rotated;
  m.config["v_head_dim"] = values;
  m.config["num_key_value_heads"] = m.heads();
  if (softmax) softmax_gate(m);
  m.config["n_routed_experts"] = m.required("expert_count");
  m.config["num_experts_per_tok"] = m.required("expert_used_count");
  m.config["n_shared_experts"] = m.integer("expert_shared_count").value_or(0);
  m.config["first_k_dense_replace"] = m.integer("leading_dense_block_count").value_or(0);
  m.config["moe_intermediate_size"] = m.required("expert_feed_forward_length");
  m.copy("intermediate_size", "feed_forward_length");
  m.config["n_group"] = m.integer("expert_group_count").value_or(1);
  m.config["topk_group"] = m.integer("expert_group_used_count").value_or(1);
  m.config["norm_topk_prob"] = m.boolean("expert_weights_norm").value_or(false);
  m.config["routed_scaling_factor"] = m.decimal(m.number("expert_weights_scale").value_or(1.0));
  // 0.1 * mscale_all_dim; DeepSeek's two scales are the same.
  const auto log_multiplier = m.number("rope.scaling.yarn_log_multiplier");
  Json* scaling = m.config.find("rope_scaling");
  if (log_multiplier && scaling != nullptr) {
    const double scale = m.decimal(static_cast<double>(static_cast<float>(*log_multiplier / 0.1)));
    (*scaling)["mscale"] = scale;
    (*scaling)["mscale_all_dim"] = scale;
  }
}

void make_llama4(GgufConfigMaker& m) {
  m.common("llama4_text");
  m.head_dim();
  m.rope();
  m.gating(kSigmoid, "sigmoid");
  const int64_t experts = m.required("expert_count");
  m.config["num_local_experts"] = experts;
  m.config["num_experts_per_tok"] = m.required("expert_used_count");
  m.config["interleave_moe_layer_step"] = m.integer("interleave_moe_layer_step").value_or(1);
  m.config["intermediate_size"] = m.required("expert_feed_forward_length");
  m.copy("intermediate_size_mlp", "feed_forward_length");
  m.config["attention_chunk_size"] = m.integer("attention.sliding_window").value_or(8192);
  // The format has no keys for these; what the released models have is written down by convention:
  // every fourth layer unrotated and tuned by position, no norm of queries and keys in Maverick.
  m.config["no_rope_layer_interval"] = 4;
  m.config["use_qk_norm"] = experts != 128;
  m.config["attn_temperature_tuning"] = true;
}

void make_gpt_oss(GgufConfigMaker& m) {
  m.common("gpt_oss");
  m.head_dim();
  m.rope();
  if (Json* scaling = m.config.find("rope_scaling")) (*scaling)["truncate"] = false;
  m.config["num_local_experts"] = m.required("expert_count");
  m.config["num_experts_per_tok"] = m.required("expert_used_count");
  m.config["intermediate_size"] = m.required("expert_feed_forward_length");
  m.copy("sliding_window", "attention.sliding_window");
  m.config["attention_bias"] = true;
  m.config["swiglu_limit"] = 7.0;
}

struct Architecture {
  std::string_view name;
  void (*make)(GgufConfigMaker& maker);
  bool permuted_qk;
};
constexpr std::array kArchitectures{Architecture{"deepseek2", make_deepseek, false},
                                    Architecture{"gpt-oss", make_gpt_oss, false},
                                    Architecture{"llama", make_llama, true},
                                    Architecture{"llama4", make_llama4, false},
                                    Architecture{"olmoe", make_olmoe, false},
                                    Architecture{"qwen2moe", make_qwen2_moe, false},
                                    Architecture{"qwen3", make_qwen3, false},
                                    Architecture{"qwen3moe", make_qwen3_moe, false}};

}  // namespace

Result<GgufConfig> gguf_config(const GgufMetadata& metadata, const GgufFind& find,
                               const std::string& label) {
  GgufFields fields(metadata, label);
  const std::string* name = fields.text("general.architecture");
  if (!fields.status().ok()) return fields.status();
  const auto* found = std::find_if(kArchitectures.begin(), kArchitectures.end(),
                                   [&](const Architecture& a) { return name && a.name == *name; });
  if (found == kArchitectures.end()) {
    std::string known;
    for (const Architecture& a : kArchitectures)
      known += (known.empty() ? "" : ", ") + std::string(a.name);
    return Status(name == nullptr ? Code::kDataCorrupt : Code::kUnimplemented,
                  label + ": general.architecture is " +
                      (name == nullptr ? "missing" : quote(*name)) + " (expected one of " + known +
                      ")",
                  "Use a model of one of these architectures.");
  }
  GgufConfigMaker maker(fields, find, *name);
  found->make(maker);
  if (!fields.status().ok()) return fields.status();
  return GgufConfig{write_json(maker.config, {.indent = 2}) + "\n", *name, found->permuted_qk};
}

}  // namespace chimera
