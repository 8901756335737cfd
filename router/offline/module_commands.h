// The commands of chimera-module, one function each.
//
// Thread safety: by the main thread of chimera-module.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/status.h"

namespace chimera {

/// Wrong usage: exit status 2 with this message.
struct ModuleUsage {
  std::string message;
};

/// Runs `words` (command and arguments) and prints its report, as JSON or for people. Throws
/// ModuleUsage or boost::program_options::error on wrong usage.
Status run_module_command(std::vector<std::string> words, bool json);

}  // namespace chimera
