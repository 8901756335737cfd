// The command line of chimerad.
//
// Thread safety: free function, from any thread.
#pragma once

#include <string>

#include "base/log/log.h"
#include "base/status.h"

namespace chimera {

struct Options {
  std::string answer;  // of --help or --version: print it and exit
  std::string config;
  bool check = false;
  log::Level log_level = log::Level::kInfo;
  log::Format log_format = log::Format::kText;
};

/// invalid_argument naming the option, what was found and what was expected.
Result<Options> parse_options(int argc, const char* const* argv);

}  // namespace chimera
