// Options of the workloads that measure the machine and the engine on it.
//
// Thread safety: free functions, by the main thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "compute/tensor/precision.h"

namespace chimera::bench {

struct RateOptions {
  std::string backbone;
  PrecisionPlan precision;
  std::string precision_text;
  int threads = 0;
  int rounds = 7;
  bool json = false;
  int streams = 1;
  int64_t tokens = 0;   // of a round, each stream
  int64_t context = 0;  // before them
  int64_t chunk = 0;    // rows of a pass
};

/// Which of them a workload has; defaults are those of the fields.
enum class Takes : uint8_t { kKernels, kMachine, kDecode, kPrefill, kBatch };

/// An exit status when the program should end now.
std::optional<int> parse_rates(const std::vector<std::string>& args, Takes takes, RateOptions* o);

}  // namespace chimera::bench
