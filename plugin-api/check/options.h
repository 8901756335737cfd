// The command line of chimera-plugin-check.
//
// Thread safety: by the main thread.
#pragma once

#include <set>
#include <string>

#include "check/runner.h"

namespace chimera::check {

/// Exit status.
inline constexpr int kConforms = 0, kDoesNot = 1, kUsage = 2;

struct Options {
  SubjectOptions subject;
  RunOptions run;
  std::set<int> cases;
  bool json = false, list = false, verbose = false;
};

/// Says what is wrong with the call and ends the program with kUsage.
[[noreturn]] void usage(const std::string& what);

/// Ends the program on --help and on a call that is wrong.
Options read_options(int argc, char** argv);

}  // namespace chimera::check
