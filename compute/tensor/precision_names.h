// Spellings of Precision: `precision:` of deployments, reports. Apart from tensor.h, which the
// kernels include.
//
// Thread safety: a constant.
#pragma once

#include "base/enum_names.h"
#include "compute/tensor/tensor.h"

namespace chimera {

inline constexpr auto kPrecisionNames = enum_names<Precision>("f32", "bf16");

}  // namespace chimera
