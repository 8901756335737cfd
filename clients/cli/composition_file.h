// Composition files for `plan` and `apply`: YAML to the object that travels on the wire.
//
// Thread safety: free function, from any thread.
#pragma once

#include <string>
#include <variant>

#include "commands.h"

namespace chimera::cli {

/// Reads a deployment file (its `composition` block is taken) or a file that is such a block
/// itself. Relative module paths become absolute from the file's directory. What the block means
/// is checked by the daemon.
std::variant<std::string, Error> read_composition_file(const std::string& file);

}  // namespace chimera::cli
