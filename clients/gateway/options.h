// The command line of chimera-gateway.
//
// Thread safety: free function, once, from main.
#pragma once

#include <string>

#include "base/log/log.h"
#include "base/status.h"

namespace chimera::gateway {

struct Options {
  std::string answer;   // of --help or --version: print it and exit
  std::string config;   // empty: the defaults
  std::string new_key;  // a principal: make a key, print it and exit
  bool check = false;
  log::Level log_level = log::Level::kInfo;
  log::Format log_format = log::Format::kText;
};

/// invalid_argument naming the option, what was found and what was expected.
Result<Options> parse_options(int argc, const char* const* argv);

}  // namespace chimera::gateway
