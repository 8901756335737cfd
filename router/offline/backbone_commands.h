// `chimera backbone …`, which is `chimera-module backbone …`.
//
// Thread safety: by the main thread of chimera-module.
#pragma once

#include <string>
#include <vector>

#include "base/status.h"

namespace chimera {

/// Throws ModuleUsage or boost::program_options::error on wrong usage.
Status run_backbone(const std::vector<std::string>& words, bool json);

}  // namespace chimera
