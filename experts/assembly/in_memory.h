// An assembly computed into memory: the tensors that `assemble` would write into a module's file,
// bit for bit.
//
// Thread safety: free functions, from any thread; all work is done on the caller's.
#pragma once

#include <functional>
#include <vector>

#include "base/status.h"
#include "compute/tensor/tensor.h"
#include "experts/assembly/plan.h"

namespace chimera {

/// The tensors that the module of `plan` has at the most, with names, shapes, dtypes and sizes and
/// nothing to read. REQUIRES: plan.module_output().
std::vector<TensorView> planned_tensors(const AssemblyPlan& plan);

/// Computes them; experts that do not differ are left out where only differences are wanted. Each
/// has memory of its own. data_corrupt and failed_precondition as Assembler::rows, all of them up
/// to a limit; resource_exhausted. Gives way (background.h).
/// REQUIRES: plan.module_output().
Result<std::vector<TensorView>> assemble_tensors(const AssemblyPlan& plan);

}  // namespace chimera
