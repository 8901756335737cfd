// What `generate` and `chat` share on the command line.
//
// Thread safety: by the main thread.
#pragma once

#include "commands.h"

namespace chimera::cli {

/// --max-tokens, --temperature and the like, and those that choose modules.
void add_sampling_options(boost::program_options::options_description& options);
/// The request they describe, without a prompt.
std::variant<wire::Generate, Error> sampling_request(
    const boost::program_options::variables_map& options);
/// One line about a run on standard error when that is a terminal, so that the text can be piped
/// on. An answer that stopped at a limit nobody set is told in any case.
void print_summary(const Output& out, const client::Generation& done, bool limit_given);

}  // namespace chimera::cli
