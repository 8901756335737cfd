// The weights that an adapter changes, as they are in memory: what the norms of DoRA are taken of.
//
// Thread safety: const methods from any thread.
#pragma once

#include <cstdint>

#include "experts/lora/targets.h"

namespace chimera {

class BaseWeights {
 public:
  BaseWeights() = default;
  virtual ~BaseWeights() = default;
  BaseWeights(const BaseWeights&) = delete;
  BaseWeights& operator=(const BaseWeights&) = delete;

  /// Writes row `row` of the weight, [target.inputs], with the numbers that passes multiply with:
  /// of a packed format what its codes stand for. False where that weight is not to be had.
  virtual bool read_row(const AdapterTarget& target, int64_t row, float* out) const = 0;
};

}  // namespace chimera
