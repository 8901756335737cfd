#include "experts/module/checkpoint_check.h"

#include "backbone/checkpoint/check.h"
#include "experts/module/base_tensors.h"
#include "experts/module/tensors.h"

namespace chimera {

Status check_checkpoint_tensors(const Checkpoint& checkpoint, const ModelConfig& config) {
  CHIMERA_RETURN_IF_ERROR(check_backbone_tensors(checkpoint, config));
  for (const int64_t layer : moe_layers(config)) {
    const Result<BaseLayer> base = read_base_layer(checkpoint, config, layer);
    if (!base.ok()) return base.status();
    CHIMERA_RETURN_IF_ERROR(base_groups(*base, config).status().with_context(checkpoint.dir()));
  }
  return {};
}

Status check_checkpoint_numbers(const Checkpoint& checkpoint, const ModelConfig& config) {
  for (const int64_t layer : moe_layers(config)) {
    const Result<BaseLayer> base = read_base_layer(checkpoint, config, layer);
    if (!base.ok()) return base.status();
    CHIMERA_RETURN_IF_ERROR(check_finite_gate(*base).with_context(checkpoint.dir()));
    for (const StoredExpert& expert : base->experts) {
      for (const StoredProjection& projection : expert) {
        CHIMERA_RETURN_IF_ERROR(
            check_finite(projection, checkpoint.block_shape()).with_context(checkpoint.dir()));
        checkpoint.release(projection.weight.tensor);
      }
    }
  }
  return {};
}

}  // namespace chimera
