#include "daemon/model/model_weights.h"

#include "compute/tensor/pack.h"
#include "experts/feed_forward.h"

namespace chimera {
namespace {

/// Null where the expert is not weights in memory.
const ExpertWeight* expert_weight(const Module& base, const AdapterTarget& target) {
  const auto layer = base.layers.find(target.layer);
  if (layer == base.layers.end()) return nullptr;
  const auto at = static_cast<size_t>(target.expert);
  if (at >= layer->second.experts.size()) return nullptr;
  const FeedForwardExpert* expert = layer->second.experts[at]->current().feed_forward();
  if (expert == nullptr) return nullptr;
  const ExpertWeights& weights = expert->weights();
  const ExpertWeight* const parts[] = {&weights.gate, &weights.up, &weights.down};
  return parts[target.projection];
}

bool fits(const AdapterTarget& target, int64_t rows, int64_t cols) {
  return rows == target.outputs && cols == target.inputs;
}

}  // namespace

Result<std::shared_ptr<const void>> ModelWeights::hold(const AdapterTarget& target) const {
  if (target.expert < 0 || base_->residency == nullptr) return std::shared_ptr<const void>();
  const ExpertPlace place{target.layer, target.expert};
  auto lease = base_->residency->lease({&place, 1});
  CHIMERA_RETURN_IF_ERROR(lease->wait());
  return std::shared_ptr<const void>(std::move(lease));
}

bool ModelWeights::read_row(const AdapterTarget& target, int64_t row, float* out) const {
  if (target.expert < 0) {
    const Matrix* weight = backbone_->weight(target.layer, target.role);
    if (weight == nullptr || !fits(target, weight->rows, weight->cols)) return false;
    widen_row(*weight, row, out);
    return true;
  }
  const ExpertWeight* weight = expert_weight(*base_, target);
  if (weight == nullptr || !fits(target, weight->rows(), weight->cols())) return false;
  if (weight->quantised) {
    weight->quantised->widen(row, row + 1, out);
  } else {
    widen_row(weight->matrix, row, out);
  }
  return true;
}

}  // namespace chimera
