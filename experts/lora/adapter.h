// Adapter: a LoRA in memory. What it adds to the backbone's own products and to the checkpoint's
// experts, for the sequences that use it.
//
// Experts that another module puts in the place of one of the checkpoint's are not changed: the
// adapter was trained beside those of the checkpoint.
//
// Thread safety: immutable once loaded.
#pragma once

#include <cstdint>
#include <vector>

#include "backbone/forward/adapter.h"
#include "experts/adapted_expert.h"

namespace chimera {

struct Adapter {
  BackboneAdapter backbone;
  /// [num_layers], each empty or [num_experts]: of the checkpoint's experts by slot.
  std::vector<std::vector<ExpertChange>> experts;
  uint64_t bytes = 0;  // held for all of it

  /// Null when the adapter leaves that expert as it is.
  const ExpertChange* change_of(size_t layer, int32_t expert) const {
    const std::vector<ExpertChange>& of_layer = experts[layer];
    const auto at = static_cast<size_t>(expert);
    return at < of_layer.size() && !of_layer[at].empty() ? &of_layer[at] : nullptr;
  }
};

}  // namespace chimera
