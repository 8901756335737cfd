// What `assemble --dry-run` prints.
//
// Thread safety: free function, from any thread.
#pragma once

#include "experts/assembly/plan.h"

namespace chimera {

/// For people: tensors that differ in numbers alone on one line. As JSON: an object per tensor,
/// then one of totals.
void print_plan(const AssemblyPlan& plan, bool json);

}  // namespace chimera
