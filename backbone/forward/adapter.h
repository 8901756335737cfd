// Low-rank changes of the backbone's own products: what an adapter (LoRA) adds to attention and to
// the feed-forwards that every row passes. They are added per sequence: rows of one batch may have
// different adapters, several, or none, and the weights themselves are never touched.
//
// The changes of routed experts, and of the dense feed-forward where it is the one base expert, are
// those of experts/adapted_expert.h.
//
// Thread safety: immutable once made; read by any number of threads.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "backbone/families/needed_tensors.h"
#include "compute/low_rank.h"

namespace chimera {

struct LayerAdapter {
  /// By the product that is changed: kQ, kK, kV, kO, kQA, kKvA, the dense and the shared
  /// feed-forward and kSharedScore. [outputs, inputs] as needed_layer_tensors has them.
  std::vector<std::pair<TensorRole, LowRank>> changes;
  /// Latent attention, of kv_b_proj: per head in the forms of LatentWeights; or empty.
  std::vector<LowRank> k_up, v_up;

  const LowRank* find(TensorRole role) const {
    for (const auto& [of, change] : changes) {
      if (of == role) return &change;
    }
    return nullptr;
  }
};

struct BackboneAdapter {
  std::vector<LayerAdapter> layers;  // [num_layers]
};

}  // namespace chimera
