// Loading: which tensors a backbone consists of, and their shapes.
#include "backbone/backbone.h"

#include <cmath>

#include "backbone/env.h"

namespace chimera {
namespace {

constexpr size_t kMostConfigBytes = 1 << 20;

/// Copies a loaded value into place, or hands its error on.
template <class T>
Status take(Result<T> loaded, T& into) {
  if (!loaded.ok()) return loaded.status();
  into = std::move(*loaded);
  return Status();
}

/// Rotary frequencies, in float like the reference: 1 / theta^(2i/d).
std::vector<float> rope_frequencies(const ModelConfig& c) {
  std::vector<float> out;
  for (int64_t i = 0; i < c.head_dim; i += 2) {
    const float exponent = static_cast<float>(i) / static_cast<float>(c.head_dim);
    const float frequency = 1.0f / std::pow(static_cast<float>(c.rope.theta), exponent);
    out.push_back(c.rope.type == RopeType::kLinear ? frequency / static_cast<float>(c.rope.factor)
                                                   : frequency);
  }
  return out;
}

/// Reads the tensors of one layer's attention and norms.
class LayerLoader {
 public:
  LayerLoader(const Checkpoint& checkpoint, const ModelConfig& config, Precision precision,
              int64_t layer)
      : checkpoint_(checkpoint), config_(config), precision_(precision), layer_(layer) {}

  Status load(Backbone::Layer& out) const {
    const ModelConfig& c = config_;
    const int64_t q_width = c.num_heads * c.head_dim;
    const int64_t kv_width = c.num_kv_heads * c.head_dim;
    CHIMERA_RETURN_IF_ERROR(matrix("self_attn.q_proj.weight", q_width, c.hidden_size, out.q));
    CHIMERA_RETURN_IF_ERROR(matrix("self_attn.k_proj.weight", kv_width, c.hidden_size, out.k));
    CHIMERA_RETURN_IF_ERROR(matrix("self_attn.v_proj.weight", kv_width, c.hidden_size, out.v));
    CHIMERA_RETURN_IF_ERROR(matrix("self_attn.o_proj.weight", c.hidden_size, q_width, out.o));
    if (c.attention_bias) {
      CHIMERA_RETURN_IF_ERROR(vector("self_attn.q_proj.bias", q_width, out.q_bias));
      CHIMERA_RETURN_IF_ERROR(vector("self_attn.k_proj.bias", kv_width, out.k_bias));
      CHIMERA_RETURN_IF_ERROR(vector("self_attn.v_proj.bias", kv_width, out.v_bias));
      CHIMERA_RETURN_IF_ERROR(vector("self_attn.o_proj.bias", c.hidden_size, out.o_bias));
    }
    if (c.qk_norm == QkNorm::kWholeVector) {
      CHIMERA_RETURN_IF_ERROR(vector("self_attn.q_norm.weight", q_width, out.q_norm));
      CHIMERA_RETURN_IF_ERROR(vector("self_attn.k_norm.weight", kv_width, out.k_norm));
    }
    const TensorNames& names = tensor_names(c);
    CHIMERA_RETURN_IF_ERROR(vector(names.attention_norm, c.hidden_size, out.attention_norm));
    return vector(names.ffn_norm, c.hidden_size, out.ffn_norm);
  }

 private:
  Status matrix(std::string_view tail, int64_t rows, int64_t cols, Matrix& into) const {
    return take(checkpoint_.matrix(layer_tensor(config_, layer_, tail), rows, cols, precision_),
                into);
  }
  Status vector(std::string_view tail, int64_t n, std::vector<float>& into) const {
    return take(checkpoint_.vector(layer_tensor(config_, layer_, tail), n), into);
  }

  const Checkpoint& checkpoint_;
  const ModelConfig& config_;
  Precision precision_;
  int64_t layer_;
};

/// config.json, with the end tokens of generation_config.json when there is one.
Result<ModelConfig> read_config(const Checkpoint& checkpoint) {
  Result<ModelConfig> config =
      parse_model_config(checkpoint.config_json(), checkpoint.dir() + "/config.json");
  if (!config.ok()) return config;
  const std::string path = checkpoint.dir() + "/generation_config.json";
  const Result<std::string> text = read_file(Env::system(), path, kMostConfigBytes);
  if (!text.ok()) {
    if (text.status().code() == Code::kNotFound) return config;
    return text.status();
  }
  CHIMERA_RETURN_IF_ERROR(add_generation_config(*text, path, *config));
  return config;
}

uint64_t vector_bytes(const std::vector<float>& v) { return v.size() * sizeof(float); }

}  // namespace

Result<std::shared_ptr<const Backbone>> Backbone::load(const Checkpoint& checkpoint,
                                                       Precision precision) {
  // The backbone stays as stored whatever the precision of the experts: it decides the routing,
  // and one flipped choice costs far more accuracy than a few wide matrices cost memory.
  constexpr Precision p = Precision::kF32;
  Result<ModelConfig> config = read_config(checkpoint);
  if (!config.ok()) return config.status();
  auto backbone = std::make_shared<Backbone>();
  backbone->config_ = std::move(*config);
  backbone->precision_ = precision;
  const ModelConfig& c = backbone->config_;
  CHIMERA_RETURN_IF_ERROR(
      take(checkpoint.matrix("model.embed_tokens.weight", c.vocab_size, c.hidden_size, p),
           backbone->embed_));
  if (c.tie_word_embeddings) {
    backbone->head_ = backbone->embed_;  // a head stored beside a tied one is not used
  } else {
    CHIMERA_RETURN_IF_ERROR(
        take(checkpoint.matrix("lm_head.weight", c.vocab_size, c.hidden_size, p), backbone->head_));
  }
  CHIMERA_RETURN_IF_ERROR(
      take(checkpoint.vector("model.norm.weight", c.hidden_size), backbone->final_norm_));
  backbone->layers_.resize(static_cast<size_t>(c.num_layers));
  for (int64_t l = 0; l < c.num_layers; ++l)
    CHIMERA_RETURN_IF_ERROR(
        LayerLoader(checkpoint, c, p, l).load(backbone->layers_[static_cast<size_t>(l)]));
  backbone->inv_freq_ = rope_frequencies(c);
  return std::shared_ptr<const Backbone>(std::move(backbone));
}

uint64_t Backbone::resident_bytes() const {
  uint64_t bytes = embed_.bytes() + vector_bytes(final_norm_);
  if (!config_.tie_word_embeddings) bytes += head_.bytes();
  for (const Layer& l : layers_) {
    for (const Matrix* m : {&l.q, &l.k, &l.v, &l.o}) bytes += m->bytes();
    for (const std::vector<float>* v : {&l.q_bias, &l.k_bias, &l.v_bias, &l.o_bias, &l.q_norm,
                                        &l.k_norm, &l.attention_norm, &l.ffn_norm})
      bytes += vector_bytes(*v);
  }
  return bytes;
}

}  // namespace chimera
