#include "experts/kinds/module.h"

#include "experts/library/backend.h"

namespace chimera {

uint64_t Module::resident_bytes() const {
  uint64_t bytes = library ? library->resident_bytes() : 0;
  if (adapter) bytes += adapter->bytes;
  if (adapter_source) bytes += adapter_source->resident_bytes();
  for (const auto& [index, layer] : layers) {
    bytes += (layer.gate_weight.size() + layer.gate_bias.size()) * sizeof(float);
    for (const auto& expert : layer.experts) bytes += expert->resident_bytes();
  }
  return bytes;
}

int64_t Module::expert_count() const {
  int64_t count = 0;
  for (const auto& [index, layer] : layers) count += static_cast<int64_t>(layer.experts.size());
  return count;
}

}  // namespace chimera
