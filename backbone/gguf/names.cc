#include "backbone/gguf/names.h"

#include <array>
#include <charconv>
#include <cstring>
#include <map>
#include <new>
#include <optional>

#include "backbone/gguf/rearrange.h"
#include "base/quote.h"

namespace chimera {
namespace {

constexpr std::array<std::string_view, 3> kProjections{"gate_proj", "up_proj", "down_proj"};

/// What stands before and after ".weight" and ".bias" in both worlds.
struct Pair {
  std::string_view gguf, huggingface;
};
constexpr std::array kAttention{Pair{"attn_q", "self_attn.q_proj"},
                                Pair{"attn_k", "self_attn.k_proj"},
                                Pair{"attn_v", "self_attn.v_proj"},
                                Pair{"attn_output", "self_attn.o_proj"},
                                Pair{"attn_q_norm", "self_attn.q_norm"},
                                Pair{"attn_k_norm", "self_attn.k_norm"},
                                Pair{"attn_q_a", "self_attn.q_a_proj"},
                                Pair{"attn_q_b", "self_attn.q_b_proj"},
                                Pair{"attn_q_a_norm", "self_attn.q_a_layernorm"},
                                Pair{"attn_kv_a_mqa", "self_attn.kv_a_proj_with_mqa"},
                                Pair{"attn_kv_a_norm", "self_attn.kv_a_layernorm"},
                                Pair{"attn_kv_b", "self_attn.kv_b_proj"}};

/// "ffn_gate…" is projection 0, and so on.
std::optional<size_t> projection_of(std::string_view name, std::string_view after) {
  constexpr std::array<std::string_view, 3> kNames{"ffn_gate", "ffn_up", "ffn_down"};
  for (size_t p = 0; p < kNames.size(); ++p) {
    if (name.starts_with(kNames[p]) && name.substr(kNames[p].size()) == after) return p;
  }
  return std::nullopt;
}

/// A decimal number at the start of `text`, which it is taken off; nothing for anything else.
std::optional<int64_t> take_number(std::string_view& text) {
  int64_t number = 0;
  if (text.empty() || text.front() < '0' || text.front() > '9') return std::nullopt;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc()) return std::nullopt;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return number;
}

class Renamer {
 public:
  Renamer(const ModelConfig& config, bool permuted_qk, const std::string& label)
      : config_(config), names_(tensor_names(config)), permuted_(permuted_qk), label_(label) {}

  Result<std::vector<TensorView>> run(const std::vector<TensorView>& tensors) {
    for (const TensorView& t : tensors) CHIMERA_RETURN_IF_ERROR(add(t));
    for (const auto& [layer, halves] : latent_) {
      if (halves.keys == nullptr || halves.values == nullptr)
        return corrupt("layer " + std::to_string(layer) + " has attn_k_b or attn_v_b alone");
      Result<TensorView> joined = join_latent(*halves.keys, *halves.values, config_);
      if (!joined.ok()) return joined.status().with_context(label_);
      put(std::move(*joined), layer_tensor(config_, layer, "self_attn.kv_b_proj.weight"));
    }
    return std::move(out_);
  }

 private:
  struct Latent {
    const TensorView* keys = nullptr;
    const TensorView* values = nullptr;
  };

  Status corrupt(const std::string& what) const {
    return {Code::kDataCorrupt, label_ + ": " + what};
  }

  void put(TensorView t, std::string name) {
    t.name = std::move(name);
    out_.push_back(std::move(t));
  }

  Status add(const TensorView& t) {
    if (t.name == "rope_freqs.weight") return {};  // in the configuration
    if (t.name == "token_embd.weight") {
      put(t, model_tensor(config_, "model.embed_tokens.weight"));
    } else if (t.name == "output_norm.weight") {
      put(t, model_tensor(config_, "model.norm.weight"));
    } else if (t.name == "output.weight") {
      put(t, model_tensor(config_, "lm_head.weight"));
    } else if (t.name.starts_with("blk.")) {
      return add_layer(t);
    } else {
      put(t, t.name);
    }
    return {};
  }

  /// blk.LAYER.STEM.weight or .bias
  Status add_layer(const TensorView& t) {
    std::string_view rest = std::string_view(t.name).substr(4);
    const std::optional<int64_t> layer = take_number(rest);
    const size_t dot = rest.rfind('.');
    if (!layer || *layer >= config_.num_layers || dot == 0 || dot == std::string_view::npos ||
        rest.front() != '.') {
      put(t, t.name);
      return {};
    }
    const std::string_view stem = rest.substr(1, dot - 1);
    const std::string_view kind = rest.substr(dot);  // ".weight"
    if (stem == "attn_k_b" || stem == "attn_v_b") {
      (stem == "attn_k_b" ? latent_[*layer].keys : latent_[*layer].values) = &t;
      return {};
    }
    if (const std::optional<size_t> p = projection_of(stem, "_exps"))
      return add_stack(t, *layer, *p, kind);
    if (const auto single = single_expert(stem)) {
      put(t, expert_tensor(config_, *layer, single->second, expert_tail(single->first, kind)));
      return {};
    }
    const std::string tail = tail_of(stem, kind);
    if (tail.empty()) {
      put(t, t.name);
      return {};
    }
    return add_one(t, stem, layer_tensor(config_, *layer, tail));
  }

  Status add_one(TensorView t, std::string_view stem, std::string name) {
    const bool heads = stem == "attn_q" || stem == "attn_k";
    if (permuted_ && heads) {
      const int64_t count = stem == "attn_q" ? config_.num_heads : config_.num_kv_heads;
      Result<TensorView> ordered = unpermute_heads(t, count);
      if (!ordered.ok()) return ordered.status().with_context(label_);
      t = std::move(*ordered);
    }
    if (stem == "ffn_gate_inp" && is_block_type(t.dtype)) {
      Result<TensorView> wide = widened(t);
      if (!wide.ok()) return wide.status().with_context(label_);
      t = std::move(*wide);
    }
    // One row, which converters store as a vector.
    if (stem == "ffn_gate_inp_shexp" && t.shape.size() == 1) t.shape.insert(t.shape.begin(), 1);
    put(std::move(t), std::move(name));
    return {};
  }

  /// Name after the layer's prefix; "" for what no family has.
  std::string tail_of(std::string_view stem, std::string_view kind) const {
    for (const Pair& pair : kAttention) {
      if (pair.gguf == stem) return std::string(pair.huggingface) + std::string(kind);
    }
    const bool bias = kind == ".bias";
    if (stem == "attn_norm") return names_.attention_norm;
    if (stem == "ffn_norm" || stem == "post_attention_norm") return names_.ffn_norm;
    if (stem == "attn_sinks") return "self_attn.sinks";
    if (stem == "ffn_gate_inp") return bias ? names_.gate_bias : names_.gate;
    if (stem == "exp_probs_b") return names_.score_correction;
    if (stem == "ffn_gate_inp_shexp") return names_.shared_gate;
    if (const auto p = projection_of(stem, "_shexp")) {
      if (names_.shared_prefix.empty()) return {};
      return names_.shared_prefix + std::string(kProjections[*p]) + std::string(kind);
    }
    if (const auto p = projection_of(stem, ""))
      return names_.dense_prefix + std::string(kProjections[*p]) + std::string(kind);
    return {};
  }

  /// "ffn_up.7" of early files of Mixtral: projection and expert.
  std::optional<std::pair<size_t, int64_t>> single_expert(std::string_view stem) const {
    const size_t dot = stem.find('.');
    if (config_.dense_base || dot == std::string_view::npos) return std::nullopt;
    const std::optional<size_t> p = projection_of(stem.substr(0, dot), "");
    std::string_view digits = stem.substr(dot + 1);
    const std::optional<int64_t> expert = take_number(digits);
    if (!p || !expert || !digits.empty() || *expert >= config_.num_experts) return std::nullopt;
    return std::pair(*p, *expert);
  }

  /// "up_proj.weight", as the family spells it.
  std::string expert_tail(size_t projection, std::string_view kind) const {
    const std::array<const std::string*, 3> tails{&names_.expert_gate, &names_.expert_up,
                                                  &names_.expert_down};
    const std::string& weight = *tails[projection];
    return weight.substr(0, weight.rfind('.')) + std::string(kind);
  }

  /// A stack over all experts, [E, …].
  Status add_stack(const TensorView& t, int64_t layer, size_t projection, std::string_view kind) {
    if (config_.dense_base || t.shape.size() < 2 || t.shape[0] != config_.num_experts)
      return corrupt("tensor " + quote(t.name) + " has shape " + shape_string(t.shape) +
                     ", expected the " + std::to_string(config_.num_experts) +
                     " experts of a layer");
    const size_t bytes = t.bytes.size() / static_cast<size_t>(config_.num_experts);
    for (int64_t e = 0; e < config_.num_experts; ++e) {
      TensorView one = t;
      one.shape.erase(one.shape.begin());
      one.bytes = t.bytes.subspan(static_cast<size_t>(e) * bytes, bytes);
      put(std::move(one), expert_tensor(config_, layer, e, expert_tail(projection, kind)));
    }
    return {};
  }

  const ModelConfig& config_;
  const TensorNames& names_;
  const bool permuted_;
  const std::string& label_;
  std::map<int64_t, Latent> latent_;
  std::vector<TensorView> out_;
};

}  // namespace

Result<std::vector<TensorView>> huggingface_tensors(const std::vector<TensorView>& tensors,
                                                    const ModelConfig& config, bool permuted_qk,
                                                    const std::string& label) {
  try {
    return Renamer(config, permuted_qk, label).run(tensors);
  } catch (const std::bad_alloc&) {
    return Status(Code::kResourceExhausted, label + ": no memory for tensors in another order",
                  "Free memory and retry.");
  }
}

}  // namespace chimera
