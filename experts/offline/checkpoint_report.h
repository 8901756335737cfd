// What `chimera-module inspect` says of a checkpoint directory.
//
// Thread safety: free functions, from any thread.
#pragma once

#include <string>

#include "backbone/checkpoint/checkpoint.h"
#include "base/json/json.h"
#include "base/status.h"

namespace chimera {

/// Family, sizes, parameters, memory per precision, and whether Chimera runs it: "runs" false with
/// "refused" naming what is not supported, missing or broken, which is also put into `verdict`. It
/// is what the daemon says when it is to load the checkpoint. Fails only when the directory cannot
/// be read as a checkpoint at all.
Result<Json> inspect_checkpoint(const std::string& dir, Status* verdict);

/// "BF16", or "BF16, F32" when tensors differ.
std::string dtype_list(const Checkpoint& checkpoint);

}  // namespace chimera
