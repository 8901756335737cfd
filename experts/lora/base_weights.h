// The weights that an adapter changes, as they are in memory: what the norms of DoRA are taken of.
//
// Thread safety: const methods from any thread.
#pragma once

#include <cstdint>
#include <memory>

#include "base/status.h"
#include "experts/lora/targets.h"

namespace chimera {

class BaseWeights {
 public:
  BaseWeights() = default;
  virtual ~BaseWeights() = default;
  BaseWeights(const BaseWeights&) = delete;
  BaseWeights& operator=(const BaseWeights&) = delete;

  /// Keeps a weight in memory for as long as the answer is kept, and has it read again where it has
  /// left (memory.evict_replaced); why it cannot be read. Blocking.
  virtual Result<std::shared_ptr<const void>> hold(const AdapterTarget& target) const = 0;
  /// REQUIRES: somebody holds the weight. Writes its row `row`, [target.inputs], with the numbers
  /// that passes multiply with: of a packed format what its codes stand for. False where that
  /// weight is not to be had.
  virtual bool read_row(const AdapterTarget& target, int64_t row, float* out) const = 0;
};

}  // namespace chimera
