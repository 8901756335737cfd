// Shares that the modules of a routing table would get, were recent traffic routed by it.
//
// Exact for the first layer with a router; in the later ones the inputs are those that the
// composition in use left there, where what a new module adds to the earlier layers is missing.
//
// Thread safety: a pure function; blocking, some milliseconds for each MiB of samples.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "base/status.h"
#include "router/routing_table.h"
#include "router/shadow/gate_samples.h"

namespace chimera {

/// Mean gate mass by module name, "backbone" among them, over tokens and then over layers, as
/// SequenceUsage has it; they sum to 1. A module without a gate of its own (an adapter) is not in
/// it, one that got nothing has 0. Empty when there are no samples. No expert is run.
Result<std::map<std::string, double>> shadow_shares(
    const std::shared_ptr<const RoutingTable>& table, const GateSamples::Copy& samples);

}  // namespace chimera
