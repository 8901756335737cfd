// The experts of a checkpoint that may leave memory while no routing table uses them
// (`memory.evict_replaced`).
//
// Thread safety: a free function; blocking, at the start.
#pragma once

#include <chrono>
#include <memory>

#include "backbone/checkpoint/checkpoint.h"
#include "experts/kinds/module.h"

namespace chimera {

/// `base`, which load_base_experts() made of `checkpoint` with precision `p`, with experts that may
/// be let go and Module::residency set. Those that use stored bytes in place give their pages back
/// when they go, also of a copied checkpoint: nobody else may use its experts' tensors. They are
/// read again from the files at checkpoint.dir(), into memory of their own where the checkpoint was
/// copied. `linger` as of ExpertResidency.
Result<std::shared_ptr<const Module>> make_evictable(const std::shared_ptr<const Module>& base,
                                                     const Checkpoint& checkpoint,
                                                     const ModelConfig& config, Precision p,
                                                     std::chrono::milliseconds linger);

}  // namespace chimera
