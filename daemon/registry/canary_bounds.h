// What ends a canary by itself.
//
// Thread safety: a pure function.
#pragma once

#include <optional>
#include <string>

#include "daemon/config/config.h"
#include "daemon/engine/canary.h"

namespace chimera {

/// Which bound the canary has exceeded, "bits per byte: found 4.1 (expected at most 2.5)"; nothing
/// when none, or too little was seen yet.
std::optional<std::string> broken_bound(const CanaryBounds& bounds, const CanarySide& canary);

}  // namespace chimera
