// Whether a checkpoint is what its configuration says, without loading it.
//
// Thread safety: free functions, from any thread.
#pragma once

#include "backbone/checkpoint/checkpoint.h"
#include "backbone/families/model_config.h"
#include "base/status.h"

namespace chimera {

/// config.json of a checkpoint, with the end tokens of generation_config.json when there is one.
Result<ModelConfig> read_model_config(const Checkpoint& checkpoint);

/// Name, shape and dtype of every tensor that the backbone consists of (needed_tensors.h), by the
/// very checks of the loader and with its errors; the first problem. Reads headers only.
Status check_backbone_tensors(const Checkpoint& checkpoint, const ModelConfig& config);

}  // namespace chimera
