// A backbone with other tensors in some places.
#include <fmt/format.h>

#include <map>
#include <optional>

#include "backbone/backbone.h"
#include "base/quote.h"
#include "compute/tensor/convert.h"

namespace chimera {
namespace {

using ByName = std::map<std::string_view, const TensorView*>;

/// The tensor of that name, which is taken out; null when there is none.
const TensorView* take_out(ByName& tensors, const std::string& name) {
  const auto found = tensors.find(name);
  if (found == tensors.end()) return nullptr;
  const TensorView* tensor = found->second;
  tensors.erase(found);
  return tensor;
}

}  // namespace

Result<std::shared_ptr<const Backbone>> Backbone::with(std::span<const TensorView> tensors) const {
  ByName left;
  for (const TensorView& tensor : tensors) left.emplace(tensor.name, &tensor);
  auto changed = std::make_shared<Backbone>(*this);
  for (const NeededTensor& needed : needed_model_tensors(config_)) {
    if (const TensorView* tensor = take_out(left, needed.name))
      CHIMERA_RETURN_IF_ERROR(changed->place(needed, *tensor));
  }
  for (int64_t l = 0; l < config_.num_layers && !left.empty(); ++l) {
    const auto at = static_cast<size_t>(l);
    std::shared_ptr<LayerWeights> layer;  // null while nothing of it changed
    for (const NeededTensor& needed : needed_layer_tensors(config_, l)) {
      const TensorView* tensor = take_out(left, needed.name);
      if (tensor == nullptr) continue;
      if (layer == nullptr) layer = std::make_shared<LayerWeights>(*layers_[at]);
      CHIMERA_RETURN_IF_ERROR(place_tensor(config_, precision_, needed, *tensor, *layer));
    }
    if (layer != nullptr) changed->layers_[at] = std::move(layer);
  }
  if (left.empty()) return std::shared_ptr<const Backbone>(std::move(changed));
  return Status(Code::kNotFound,
                fmt::format("tensor {}: no such tensor in the backbone (expected the name of one)",
                            quote(left.begin()->first)));
}

Status Backbone::place(const NeededTensor& needed, const TensorView& tensor) {
  if (needed.role == TensorRole::kFinalNorm) {
    Result<std::vector<float>> norm = to_f32(tensor, needed.shape[0]);
    if (!norm.ok()) return norm.status();
    final_norm_ = std::move(*norm);
    return {};
  }
  const auto read = [&](Precision p, Matrix& into) -> Status {
    Result<Matrix> matrix = to_matrix(tensor, needed.shape[0], needed.shape[1], p);
    if (!matrix.ok()) return matrix.status();
    into = std::move(*matrix);
    return {};
  };
  if (needed.role == TensorRole::kHead) return read(precision_.head, head_);
  CHIMERA_RETURN_IF_ERROR(read(Precision::kF32, embed_));
  if (!config_.tie_word_embeddings) return {};
  if (packed_format(precision_.head)) return read(precision_.head, head_);
  head_ = embed_;
  return {};
}

uint64_t Backbone::bytes_beside(const Backbone& other) const {
  uint64_t bytes = final_norm_.size() * sizeof(float);
  if (embed_.data != other.embed_.data) bytes += embed_.bytes();
  if (head_.data != embed_.data && head_.data != other.head_.data) bytes += head_.bytes();
  for (size_t l = 0; l < layers_.size(); ++l)
    bytes += weight_bytes_beside(*layers_[l], *other.layers_[l]);
  return bytes;
}

}  // namespace chimera
