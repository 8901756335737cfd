// The parts of the workload `capacity`: each measures one limit of a daemon and says what it saw.
//
// Thread safety: by the main thread, one at a time.
#pragma once

#include <string>
#include <vector>

#include "base/json/json.h"
#include "daemon_process.h"

namespace chimera::bench {

struct CapacityOptions {
  DeploymentOptions deployment;
  int clients = 16;
  double rate = 200.0;  // changes asked for per second
  double seconds = 20.0;
  int count = 1024;        // of modules
  int64_t longest = 8000;  // tokens of a long prompt
  int most = 1000;         // clients of a crowd
  int64_t requests = 1'000'000;
  bool json = false;
};

/// What a part saw, and whether it is within the limits that the project promises.
struct CapacityResult {
  Json figures;
  std::vector<std::string> lines;  // the same for people
  bool within = true;
};

/// Proportional set size of a daemon, bytes; and its resident one, which does not depend on who
/// else has the same files mapped.
double pss_of(const DaemonProcess& daemon);
double rss_of(const DaemonProcess& daemon);

/// Changes of a module's bias at a fixed rate, under streams that use the module.
CapacityResult measure_epochs(const CapacityOptions& options);
/// What `count` modules cost: loading, planning and changing them, and requests without them.
CapacityResult measure_many(const CapacityOptions& options);
/// What modules take, by the daemon's account and by the kernel's.
CapacityResult measure_memory(const CapacityOptions& options);
/// Loads that read and verify: alone, seven by one apply, and beside streams.
CapacityResult measure_loads(const CapacityOptions& options);
/// Up to 1,000 clients at once.
CapacityResult measure_crowds(const CapacityOptions& options);
/// A million short requests, and what the daemon has in memory all the while.
CapacityResult measure_lasting(const CapacityOptions& options);
/// Short prompts and streams beside long prompts.
CapacityResult measure_prompts(const CapacityOptions& options);

}  // namespace chimera::bench
