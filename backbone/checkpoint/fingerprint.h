// The fingerprint of a backbone: what a module names to say where it belongs.
//
// Thread safety: free functions.
#pragma once

#include <string>

#include "backbone/checkpoint/checkpoint.h"
#include "base/status.h"

namespace chimera {

/// "sha256:…" of the backbone: name, dtype, shape and bytes of every tensor of the checkpoint in
/// name order, gates as they are stored there, without the feed-forward weights of routed experts.
/// So adding, removing or changing experts keeps it as long as the gate matrices stay, and a
/// directory that `module split` wrote, with the gate rows of the base experts alone, has a
/// fingerprint of its own: the one that the modules cut from it name, so that they are never put
/// on another backbone. Sharding and the order of tensors do not matter.
///
/// Cached in `cache_dir` (made when missing; empty: no cache) under device, inode, size,
/// modification and change time of every file. The cache is best effort and trusts whoever may
/// write to that directory.
Result<std::string> backbone_fingerprint(const Checkpoint& checkpoint,
                                         const std::string& cache_dir);

}  // namespace chimera
