// What the daemon says of itself as families of Prometheus. Internal to this room.
//
// Thread safety: pure function.
#pragma once

#include <prometheus/metric_family.h>

#include <vector>

#include "clients/gateway/metrics/metrics.h"

namespace chimera::gateway {

void append_daemon_families(const DaemonState& daemon, std::vector<prometheus::MetricFamily>& out);

}  // namespace chimera::gateway
