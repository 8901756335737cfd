// Loading: configuration, embedding and head, and the layers' parts (backbone_weights.cc).
#include "backbone/backbone.h"

#include "base/io/env.h"

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
  CHIMERA_RETURN_IF_ERROR(take(checkpoint.matrix(model_tensor(c, "model.embed_tokens.weight"),
                                                 c.vocab_size, c.hidden_size, p),
                               backbone->embed_));
  if (c.tie_word_embeddings) {
    backbone->head_ = backbone->embed_;  // a head stored beside a tied one is not used
  } else {
    CHIMERA_RETURN_IF_ERROR(
        take(checkpoint.matrix(model_tensor(c, "lm_head.weight"), c.vocab_size, c.hidden_size, p),
             backbone->head_));
  }
  CHIMERA_RETURN_IF_ERROR(
      take(checkpoint.vector(model_tensor(c, "model.norm.weight"), c.hidden_size),
           backbone->final_norm_));
  backbone->layers_.resize(static_cast<size_t>(c.num_layers));
  for (int64_t l = 0; l < c.num_layers; ++l)
    CHIMERA_RETURN_IF_ERROR(
        load_layer(checkpoint, c, p, l, backbone->layers_[static_cast<size_t>(l)]));
  backbone->rope_ = Rope(c);
  return std::shared_ptr<const Backbone>(std::move(backbone));
}

uint64_t Backbone::resident_bytes() const {
  uint64_t bytes = embed_.bytes() + final_norm_.size() * sizeof(float);
  if (!config_.tie_word_embeddings) bytes += head_.bytes();
  for (const LayerWeights& layer : layers_) bytes += weight_bytes(layer);
  return bytes;
}

}  // namespace chimera
