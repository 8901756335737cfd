// The llama3 scaling of rotary positions, which GGUF files keep as its result: the factor of every
// frequency, tensor rope_freqs.weight.
//
// Thread safety: free function.
#pragma once

#include <optional>

#include "base/json/json.h"
#include "compute/tensor/tensor.h"

namespace chimera {

/// The rope_scaling of config.json whose factors these are, to within rounding to F32; nothing when
/// there is none among the parameters that released models have.
std::optional<Json> llama3_scaling(const TensorView& factors, double theta);

}  // namespace chimera
