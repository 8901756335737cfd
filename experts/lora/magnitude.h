// DoRA (Liu et al. 2024, arXiv 2402.09353) as PEFT computes it: the rows of a changed weight have
// the lengths that the adapter states,
//
//   W' = m / ||W + s B A|| * (W + s B A)    norms over the inputs of each output
//
// so a product is that of a LoRA with every output multiplied by one number, which is known once
// the adapter is loaded.
//
// Thread safety: pure functions.
#pragma once

#include <memory>
#include <vector>

#include "base/status.h"
#include "experts/lora/base_weights.h"
#include "experts/lora/stacks.h"

namespace chimera {

/// [outputs], m / ||W + s B A||: rows of W in F32, changed in F32 in the order of the ranks,
/// squares summed in F64. REQUIRES: change.magnitude. failed_precondition: a row of the changed
/// weight is all zeros, or W is not to be had. Gives way (background.h).
Result<std::shared_ptr<const std::vector<float>>> output_factors(const StoredChange& change,
                                                                 const BaseWeights& weights);

}  // namespace chimera
