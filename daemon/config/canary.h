// The section `canary` of a deployment file.
//
// Thread safety: a free function, from any thread.
#pragma once

#include "daemon/config/config.h"
#include "daemon/config/reader.h"

namespace chimera {

/// Reads it from the top level, if it is there; notes what is wrong.
void read_canary(const MapReader& top, YamlProblems& problems, CanaryBounds* out);

}  // namespace chimera
