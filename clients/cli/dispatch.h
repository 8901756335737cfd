// From the arguments of `chimera` to the command they name.
//
// Thread safety: by the main thread.
#pragma once

#include "commands.h"

namespace chimera::cli {

/// Runs the command. Throws boost::program_options::error on options that it does not know.
Outcome dispatch(int argc, char** argv);

}  // namespace chimera::cli
