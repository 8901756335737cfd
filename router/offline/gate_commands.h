// fit-gate of chimera-module.
//
// Thread safety: by the main thread of chimera-module.
#pragma once

#include <string>
#include <vector>

#include "base/status.h"

namespace chimera {

/// Throws ModuleUsage or boost::program_options::error on wrong usage.
Status run_fit_gate(const std::vector<std::string>& words, bool json);

}  // namespace chimera
