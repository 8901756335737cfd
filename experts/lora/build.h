// An adapter in the form that the products take: A as it is stored (half precision as F32), B
// turned round and in F32, kv_b_proj cut up per head like the weight it changes.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "backbone/families/model_config.h"
#include "base/status.h"
#include "experts/lora/adapter.h"
#include "experts/lora/base_weights.h"
#include "experts/lora/tensors.h"

namespace chimera {

/// `weights`: for the norms of DoRA; null where there are none (failed_precondition, if they are
/// needed). resource_exhausted: no memory. Parts of the file stay in use where A is used in place.
Result<std::shared_ptr<const Adapter>> build_adapter(const std::vector<StoredChange>& changes,
                                                     const ModelConfig& config, uint64_t file_bytes,
                                                     const BaseWeights* weights = nullptr);

/// Bytes that build_adapter makes beside the file of these tensors.
uint64_t built_bytes(const SafetensorsFile& file, int64_t experts);

}  // namespace chimera
