// The weights of a loaded model by the names that adapters know them by.
//
// Thread safety: immutable.
#pragma once

#include <memory>
#include <utility>

#include "backbone/backbone.h"
#include "experts/kinds/module.h"
#include "experts/lora/base_weights.h"

namespace chimera {

class ModelWeights final : public BaseWeights {
 public:
  ModelWeights(std::shared_ptr<const Backbone> backbone, std::shared_ptr<const Module> base)
      : backbone_(std::move(backbone)), base_(std::move(base)) {}

  Result<std::shared_ptr<const void>> hold(const AdapterTarget& target) const override;
  bool read_row(const AdapterTarget& target, int64_t row, float* out) const override;

 private:
  const std::shared_ptr<const Backbone> backbone_;
  const std::shared_ptr<const Module> base_;  // the experts of the checkpoint
};

}  // namespace chimera
