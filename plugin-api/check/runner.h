// Runs cases, each in a process of its own with a time limit.
//
// Thread safety: one thread; the process must have no others, as cases are forked.
#pragma once

#include <set>
#include <string>

#include "check/cases/case.h"

namespace chimera::check {

struct RunOptions {
  Level level = Level::kNormal;
  uint64_t seed = 0;
  double time_factor = 1.0;  // stretches every time limit
  bool in_process = false;   // one case, for debuggers: a crash ends the checker
};

struct CaseResult {
  const Case* which = nullptr;
  Finding finding;
  double seconds = 0;
  std::string output;  // what the plugin printed, cut at 4 KiB
};

CaseResult run_case(const Case& which, const Subject& subject, const RunOptions& options,
                    const std::string& work_dir);

}  // namespace chimera::check
