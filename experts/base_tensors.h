// The routed experts and gate rows of a Hugging Face checkpoint, whichever layout it stores them in
// (model-families: per expert, or fused as transformers 5 writes them).
//
// Lifetime: views into the checkpoint's memory, which they keep alive.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "backbone/checkpoint.h"
#include "backbone/model_config.h"
#include "backbone/status.h"
#include "backbone/tensor.h"

namespace chimera {

/// Gate and up projection [width, hidden], down projection [hidden, width].
using ExpertViews = std::array<TensorView, 3>;

struct BaseLayer {
  TensorView gate;                   // [E, hidden], under the name it has in the file
  std::vector<ExpertViews> experts;  // [E]
  bool fused = false;                // the experts are slices of two stacks
};

/// Errors name the tensor with found and expected shape, as Checkpoint::require.
Result<BaseLayer> read_base_layer(const Checkpoint& checkpoint, const ModelConfig& config,
                                  int64_t layer);

}  // namespace chimera
