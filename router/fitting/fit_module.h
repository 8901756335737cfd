// `chimera module fit-gate`: a module with gate rows that were fitted to texts; its experts stay as
// they are.
//
// Gate inputs are first taken from the backbone alone. Then, round by round, rows are fitted to
// them in every layer (gate_fit.h) and the inputs are taken again with the module in use, since
// what it adds in one layer is seen by the gates of the next. Every fifth window is left out and
// tells how good the result is.
//
// Thread safety: free functions, from any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/json/json.h"
#include "base/status.h"
#include "compute/tensor/precision.h"

namespace chimera {

struct FitGateOptions {
  std::string backbone_dir;
  std::string out_dir;
  std::vector<std::string> text;      // files of what the module is for
  std::vector<std::string> against;   // files of what it is not for
  uint64_t limit_bytes = 256u << 10;  // of each kind
  double ridge = 1e-3;
  double prior = 0;  // log-odds in favour of the module
  int rounds = 3;
  Precision precision = Precision::kF32;
  int threads = 1;
  std::function<void(const std::string& what)> progress;  // may be empty
};

/// Writes the module to `out_dir`, complete or not at all. The report: windows, and for both kinds
/// of text, of windows that were left out, bits per byte of the backbone alone, with the module as
/// it was and as it is now, and its shares.
Result<Json> fit_module(const std::string& module_dir, const FitGateOptions& options);

}  // namespace chimera
