// Changes that load are jobs of the daemon: waiting for one, with a bar on a terminal, and the list
// of them.
//
// Thread safety: by the main thread.
#pragma once

#include <variant>

#include "commands.h"

namespace chimera::cli {

/// --no-wait and --detach.
void add_waiting_options(boost::program_options::options_description& options);
wire::Waiting waiting_of(const Invocation& run);

/// Sends a change that loads and waits for its answer as `waiting` says, which is the call's own.
/// Ctrl-C ends the waiting, and with it the job unless that is detached.
std::variant<client::Event, Error> wait_for(const Invocation& run, const wire::Call& call,
                                            const wire::Waiting& waiting);

/// "45 %" of a job that is reading; "" of another.
std::string part_done(const Json& job);

}  // namespace chimera::cli
