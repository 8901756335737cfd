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
  std::string answer;  // to be printed, and nothing else done
};

/// A call that is wrong, and how.
struct Usage {
  std::string what;
};
/// Throws Usage.
[[noreturn]] void usage(const std::string& what);

/// With --help or --version `answer` holds the text that was asked for. Throws Usage.
Options read_options(int argc, char** argv);

}  // namespace chimera::check
