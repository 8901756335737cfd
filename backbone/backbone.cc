// Loading: configuration, embedding and head, and the layers' parts (forward/weights.cc).
#include "backbone/backbone.h"

#include "backbone/checkpoint/check.h"

namespace chimera {
namespace {

/// Copies a loaded value into place, or hands its error on.
template <class T>
Status take(Result<T> loaded, T& into) {
  if (!loaded.ok()) return loaded.status();
  into = std::move(*loaded);
  return Status();
}

/// The tensor that a tied head is packed from: the embedding, or what has been packed of it.
const std::string& tied_head(const Checkpoint& checkpoint, const std::string& head,
                             const std::string& embedding) {
  const TensorView* stored = checkpoint.find(head);
  return stored != nullptr && is_packed_type(stored->dtype) ? head : embedding;
}

}  // namespace

Result<std::shared_ptr<const Backbone>> Backbone::load(const Checkpoint& checkpoint,
                                                       const PrecisionPlan& precision) {
  CHIMERA_RETURN_IF_ERROR(checkpoint.check_packed_for(precision));
  Result<ModelConfig> config = read_model_config(checkpoint);
  if (!config.ok()) return config.status();
  auto backbone = std::make_shared<Backbone>();
  backbone->config_ = std::move(*config);
  backbone->precision_ = precision;
  const ModelConfig& c = backbone->config_;
  for (const NeededTensor& t : needed_model_tensors(c)) {
    if (t.role == TensorRole::kFinalNorm) {
      CHIMERA_RETURN_IF_ERROR(take(checkpoint.vector(t.name, t.shape[0]), backbone->final_norm_));
      continue;
    }
    const auto read = [&](const std::string& name, Precision p, Matrix& into) {
      return take(checkpoint.matrix(name, t.shape[0], t.shape[1], p), into);
    };
    if (t.role == TensorRole::kHead) {
      CHIMERA_RETURN_IF_ERROR(read(t.name, precision.head, backbone->head_));
      continue;
    }
    CHIMERA_RETURN_IF_ERROR(read(t.name, Precision::kF32, backbone->embed_));
    // Packed from what is stored: widened blocks would be rounded once more.
    if (c.tie_word_embeddings && packed_format(precision.head)) {
      const std::string head = head_name(c);
      CHIMERA_RETURN_IF_ERROR(
          read(tied_head(checkpoint, head, t.name), precision.head, backbone->head_));
    }
  }
  if (c.tie_word_embeddings && !packed_format(precision.head)) backbone->head_ = backbone->embed_;
  for (int64_t l = 0; l < c.num_layers; ++l) {
    auto layer = std::make_shared<LayerWeights>();
    CHIMERA_RETURN_IF_ERROR(load_layer(checkpoint, c, precision, l, *layer));
    backbone->layers_.push_back(std::move(layer));
  }
  backbone->rope_ = Rope(c);
  return std::shared_ptr<const Backbone>(std::move(backbone));
}

const Matrix* Backbone::weight(int64_t layer, TensorRole role) const {
  const LayerWeights& of = *layers_[static_cast<size_t>(layer)];
  const auto ffn = [](const std::optional<FfnWeights>& weights, Matrix FfnWeights::*part) {
    return weights ? &((*weights).*part) : nullptr;
  };
  const auto present = [](const Matrix& weight) { return weight.rows > 0 ? &weight : nullptr; };
  switch (role) {
    case TensorRole::kQ:
      return present(of.q);
    case TensorRole::kK:
      return present(of.k);
    case TensorRole::kV:
      return present(of.v);
    case TensorRole::kO:
      return present(of.o);
    case TensorRole::kQA:
      return of.latent ? present(of.latent->q_a) : nullptr;
    case TensorRole::kKvA:
      return of.latent ? present(of.latent->kv_a) : nullptr;
    case TensorRole::kDenseGate:
      return ffn(of.dense, &FfnWeights::gate);
    case TensorRole::kDenseUp:
      return ffn(of.dense, &FfnWeights::up);
    case TensorRole::kDenseDown:
      return ffn(of.dense, &FfnWeights::down);
    case TensorRole::kSharedGate:
      return ffn(of.shared, &FfnWeights::gate);
    case TensorRole::kSharedUp:
      return ffn(of.shared, &FfnWeights::up);
    case TensorRole::kSharedDown:
      return ffn(of.shared, &FfnWeights::down);
    case TensorRole::kSharedScore:
      return of.shared_gate ? &*of.shared_gate : nullptr;
    default:
      return nullptr;  // no product, or one that is kept in another form
  }
}

uint64_t Backbone::resident_bytes() const {
  uint64_t bytes = embed_.bytes() + final_norm_.size() * sizeof(float);
  if (head_.data != embed_.data) bytes += head_.bytes();
  for (const auto& layer : layers_) bytes += weight_bytes(*layer);
  return bytes;
}

}  // namespace chimera
