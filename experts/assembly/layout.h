// Where the tensors of a plan go in the files that are written. Internal to plan_assembly.
//
// Thread safety: free function, from any thread.
#pragma once

#include "experts/assembly/plan.h"

namespace chimera {

/// Fills `outputs` and `shards` from parents and tensors. A checkpoint is laid out as the base is:
/// same names, order and stacks, what was quantised in its plain layout. A module of what differs
/// has the experts that a rule takes (design §6).
void plan_outputs(AssemblyPlan& plan, uint64_t shard_bytes);

}  // namespace chimera
