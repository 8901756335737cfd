// What the network's security costs clients that are served.
//
// Thread safety: free functions, by the main thread.
#pragma once

#include "daemon_process.h"

namespace chimera::bench {

/// Prints tokens/s of 16 streams over CURVE against ipc, and the p99 of health beside 1,000 silent
/// peers against quiet: both alternate within the run, and the ratios of neighbours are what
/// counts.
void measure_curve(const DeploymentOptions& options);

}  // namespace chimera::bench
