// Whether a whole checkpoint can be served, found out without loading it: what the loader checks of
// every tensor, by the loader's own code and with its errors.
//
// Thread safety: free functions, from any thread.
#pragma once

#include "backbone/checkpoint/checkpoint.h"
#include "backbone/families/model_config.h"
#include "base/status.h"

namespace chimera {

/// Name, shape and dtype of every tensor that is needed, backbone and routed experts; the first
/// problem. Reads headers only.
Status check_checkpoint_tensors(const Checkpoint& checkpoint, const ModelConfig& config);

/// That routers and experts are finite numbers, as loading demands. Reads them all, in constant
/// memory when the checkpoint is mapped. REQUIRES: check_checkpoint_tensors passed.
Status check_checkpoint_numbers(const Checkpoint& checkpoint, const ModelConfig& config);

}  // namespace chimera
