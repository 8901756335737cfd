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
/// A packed checkpoint (packed_record.h) has that of its source, as its record says. data_corrupt:
/// its tensors are not those that the record was written for, or none of them is packed;
/// failed_precondition: tensors of the backbone are packed, and there is no record.
///
/// Cached in `cache_dir` (made when missing; empty: no cache) under device, inode, size,
/// modification and change time of every file. The cache is best effort and trusts whoever may
/// write to that directory.
Result<std::string> backbone_fingerprint(const Checkpoint& checkpoint,
                                         const std::string& cache_dir);
/// The same of its own tensors alone, whatever a record says, and computed anew: what a record
/// calls the content.
Result<std::string> backbone_content(const Checkpoint& checkpoint);

}  // namespace chimera
