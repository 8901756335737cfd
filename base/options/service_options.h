// The command line of a program that serves: what chimerad and chimera-gateway have in common.
//
// Thread safety: free function, from any thread.
#pragma once

#include <boost/program_options.hpp>
#include <string>

#include "base/log/log.h"
#include "base/status.h"

namespace chimera {

struct ServiceOptions {
  boost::program_options::variables_map given;
  std::string answer;  // of --help or --version: print it and exit
  log::Level log_level = log::Level::kInfo;
  log::Format log_format = log::Format::kText;
};

/// Adds --log-level, --log-format, --version and --help to `known` and parses. invalid_argument
/// naming the option, what was found and what was expected.
Result<ServiceOptions> parse_service_options(const std::string& program,
                                             boost::program_options::options_description known,
                                             int argc, const char* const* argv);

}  // namespace chimera
