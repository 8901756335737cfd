// What `chimera` tells about itself, and the options all commands share.
//
// Thread safety: by the main thread.
#pragma once

#include "commands.h"

namespace chimera::cli {

boost::program_options::options_description global_options();
void print_help(const std::vector<Command>& commands);
void print_help(const Command& command);
/// `chimera module …` is a program of its own that knows checkpoints and needs no daemon: becomes
/// it. `arguments` are its own and end with null; `json`: --json stood before them.
Outcome run_module_program(char** arguments, bool json);

}  // namespace chimera::cli
