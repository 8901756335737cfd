// What commands that change what is loaded share: their options, and how an answer is shown.
//
// Thread safety: by the main thread.
#pragma once

#include "commands.h"
#include "job.h"

namespace chimera::cli {

/// --in-flight, --no-wait and --detach.
void add_change_options(boost::program_options::options_description& options);
/// What --in-flight says.
std::variant<bool, Error> wants_restart(const boost::program_options::variables_map& options);
/// Sends a change that loads nothing, and shows what it did.
Outcome show_change(const Invocation& run, const wire::Call& call);
/// Sends a change that loads, waits as `waiting` says, and shows what it did.
Outcome show_load(const Invocation& run, const wire::Call& call, const wire::Waiting& waiting);

/// "10%" or "0.1": of requests, above none; nothing for what is no such part (canary.cc).
std::optional<double> fraction_of(std::string_view text);

}  // namespace chimera::cli
