#include "backbone/families/needed_tensors.h"

#include <utility>

namespace chimera {
namespace {

using enum TensorRole;

/// The table of one layer, in the order of the computation.
class LayerTable {
 public:
  LayerTable(const ModelConfig& config, int64_t layer)
      : c_(config), names_(tensor_names(config)), layer_(layer) {}

  std::vector<NeededTensor> list() {
    c_.mla ? latent() : standard();
    add(kO, "self_attn.o_proj.weight", {c_.hidden_size, c_.num_heads * c_.v_head_dim});
    if (c_.attention_output_bias) add(kOBias, "self_attn.o_proj.bias", {c_.hidden_size});
    if (c_.attention_sinks) add(kSinks, "self_attn.sinks", {c_.num_heads});
    add(kAttentionNorm, names_.attention_norm, {c_.hidden_size});
    add(kFfnNorm, names_.ffn_norm, {c_.hidden_size});
    feed_forward();
    return std::move(list_);
  }

 private:
  void standard() {
    const int64_t q = c_.num_heads * c_.head_dim;
    const int64_t kv = c_.num_kv_heads * c_.head_dim;
    add(kQ, "self_attn.q_proj.weight", {q, c_.hidden_size});
    add(kK, "self_attn.k_proj.weight", {kv, c_.hidden_size});
    add(kV, "self_attn.v_proj.weight", {kv, c_.hidden_size});
    if (c_.attention_bias) {
      add(kQBias, "self_attn.q_proj.bias", {q});
      add(kKBias, "self_attn.k_proj.bias", {kv});
      add(kVBias, "self_attn.v_proj.bias", {kv});
    }
    const bool whole = c_.qk_norm == QkNorm::kWholeVector;
    if (!whole && c_.qk_norm != QkNorm::kPerHead) return;
    add(kQNorm, "self_attn.q_norm.weight", {whole ? q : c_.head_dim});
    add(kKNorm, "self_attn.k_norm.weight", {whole ? kv : c_.head_dim});
  }

  void latent() {
    const MlaConfig& m = *c_.mla;
    const int64_t q = c_.num_heads * c_.head_dim;
    const bool low_rank = m.q_lora_rank > 0;
    if (low_rank) {
      add(kQA, "self_attn.q_a_proj.weight", {m.q_lora_rank, c_.hidden_size});
      add(kQANorm, "self_attn.q_a_layernorm.weight", {m.q_lora_rank});
      add(kQ, "self_attn.q_b_proj.weight", {q, m.q_lora_rank});
    } else {
      add(kQ, "self_attn.q_proj.weight", {q, c_.hidden_size});
    }
    add(kKvA, "self_attn.kv_a_proj_with_mqa.weight", {c_.key_width(), c_.hidden_size});
    add(kKvANorm, "self_attn.kv_a_layernorm.weight", {m.kv_lora_rank});
    if (c_.attention_bias) {
      if (low_rank) add(kQABias, "self_attn.q_a_proj.bias", {m.q_lora_rank});
      add(kKvABias, "self_attn.kv_a_proj_with_mqa.bias", {c_.key_width()});
    }
    add(kKvB, "self_attn.kv_b_proj.weight",
        {c_.num_heads * (m.qk_nope_head_dim + c_.v_head_dim), m.kv_lora_rank});
  }

  void feed_forward() {
    if (c_.moe_layers[static_cast<size_t>(layer_)] == 0) {
      ffn(names_.dense_prefix, c_.dense_intermediate_size, kDenseGate, kDenseUp, kDenseDown);
      return;
    }
    if (c_.shared_intermediate_size == 0) return;
    ffn(names_.shared_prefix, c_.shared_intermediate_size, kSharedGate, kSharedUp, kSharedDown);
    if (c_.shared_gated) add(kSharedScore, names_.shared_gate, {1, c_.hidden_size});
  }

  void ffn(const std::string& prefix, int64_t width, TensorRole gate, TensorRole up,
           TensorRole down) {
    add(gate, prefix + "gate_proj.weight", {width, c_.hidden_size});
    add(up, prefix + "up_proj.weight", {width, c_.hidden_size});
    add(down, prefix + "down_proj.weight", {c_.hidden_size, width});
  }

  void add(TensorRole role, std::string_view tail, std::vector<int64_t> shape) {
    list_.push_back({role, layer_tensor(c_, layer_, tail), std::move(shape)});
  }

  const ModelConfig& c_;
  const TensorNames& names_;
  int64_t layer_;
  std::vector<NeededTensor> list_;
};

}  // namespace

std::vector<NeededTensor> needed_model_tensors(const ModelConfig& c) {
  const std::vector<int64_t> table{c.vocab_size, c.hidden_size};
  std::vector<NeededTensor> list;
  list.push_back({kEmbedding, model_tensor(c, "model.embed_tokens.weight"), table});
  // A head stored beside a tied one is not used, unless packed.
  if (!c.tie_word_embeddings) list.push_back({kHead, head_name(c), table});
  list.push_back({kFinalNorm, model_tensor(c, "model.norm.weight"), {c.hidden_size}});
  return list;
}

std::string head_name(const ModelConfig& config) { return model_tensor(config, "lm_head.weight"); }

std::vector<NeededTensor> needed_layer_tensors(const ModelConfig& config, int64_t layer) {
  return LayerTable(config, layer).list();
}

}  // namespace chimera
