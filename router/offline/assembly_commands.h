// assemble, merge and diff of chimera-module.
//
// Thread safety: by the main thread of chimera-module.
#pragma once

#include <string>
#include <vector>

#include "base/status.h"

namespace chimera {

/// Throw ModuleUsage or boost::program_options::error on wrong usage.
Status run_assemble(const std::vector<std::string>& words, bool json);
Status run_merge(const std::vector<std::string>& words, bool json);
Status run_diff(const std::vector<std::string>& words, bool json);

}  // namespace chimera
