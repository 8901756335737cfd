// What the daemon tells of itself (clients/PROTOCOL.md) as JSON: changes, modules, epochs,
// counters, the account of memory.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>

#include "base/json/json.h"
#include "daemon/engine/engine.h"
#include "daemon/memory/ledger.h"
#include "daemon/registry/registry.h"

namespace chimera {

Json to_json(const Status& status);
Json to_json(const ChangeReport& report);
Json to_json(const PlanReport& report);
Json to_json(const CanaryStatus& canary);
Json to_json(const ModuleStatus& module);
Json to_json(const LibraryStats& stats);
Json to_json(const JobStatus& job);
Json to_json(const EpochInfo& epoch);
Json to_json(const EpochRecord& record);
/// {"le": upper ends of the buckets, "queue": {"counts": one more than `le`, "sum"}, …}
Json to_json(const Latencies& latencies);
Json to_json(const EngineStats& stats);
Json to_json(const AdapterStats& stats);
Json to_json(const Ledger::Account& account);
/// Names of mapped files that somebody wrote to; where they lie is not for clients.
Json changed_files_json();
/// One layer of `routing`.
Json to_json(const RouterStats::Layer& layer, int64_t index);

}  // namespace chimera
