// What a failed expert means for the rows that chose it.
//
// Thread safety: a value.
#pragma once

#include <cstdint>

#include "base/enum_names.h"

namespace chimera {

/// What happens to a row whose expert failed: the request ends with an error, or the expert counts
/// as not chosen and the weights of the others are scaled up to the same sum.
enum class FailurePolicy : uint8_t { kFail, kDrop };
inline constexpr auto kFailurePolicyNames = enum_names<FailurePolicy>("fail", "drop");

}  // namespace chimera
