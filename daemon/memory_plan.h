// The memory plan of a deployment: what a daemon takes beside its modules, in the ledger.
//
// Order of a start: the model is checked against the budget before it is read; what it holds, the
// scratch memory and a key/value cache for one context are taken; modules are loaded into what is
// left; last the cache gets its share of what they left.
//
// Thread safety: by the main thread, at the start.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backbone/checkpoint/checkpoint.h"
#include "base/status.h"
#include "daemon/adapters/adapter_store.h"
#include "daemon/config/config.h"
#include "daemon/engine/engine.h"
#include "daemon/memory/ledger.h"
#include "daemon/model/loaded_backbone.h"

namespace chimera {

/// What the weights of a checkpoint take at the least once they are loaded with `precision`: from
/// the headers of its files.
uint64_t least_model_bytes(const Checkpoint& checkpoint, const PrecisionPlan& precision);
/// Of forward passes of an engine, at the most.
uint64_t scratch_bytes(const ModelConfig& model, const EngineOptions& options);
/// Of answers that wait for their clients, at the most.
uint64_t queue_bytes(const DeploymentConfig& config);
/// The key/value cache of a deployment: a full context for every sequence, but no more than
/// `memory.kv` says and than `free`, which everything else leaves of the budget; half of that where
/// the deployment leaves the choice to the daemon. Room for one context at least, as far as
/// `memory.kv` allows.
uint64_t planned_kv_bytes(const DeploymentConfig& config, const ModelConfig& model,
                          const EngineOptions& options, uint64_t free);
/// "1.2 GiB of 8.0 GiB, which 64 sequences of 4096 tokens fill": for people.
std::string kv_text(const ModelConfig& model, const EngineOptions& options, uint64_t planned);

class MemoryPlan {
 public:
  /// Budget of a deployment on this machine. `config` outlives the plan.
  explicit MemoryPlan(const DeploymentConfig* config);

  Ledger& ledger() { return ledger_; }
  /// Adapters within `memory.adapters`; null where all of them stay in memory.
  AdapterStore* adapters() { return adapters_ ? &*adapters_ : nullptr; }
  /// resource_exhausted when the checkpoint cannot fit, before its weights are read.
  Status check_model() const;
  /// Takes what a loaded model and its engine hold, and the smallest cache.
  Status take(const LoadedBackbone& model, const EngineOptions& options);
  /// Once the first modules are loaded: the bytes of the cache. Tells the whole account to the log.
  uint64_t settle_cache(const LoadedBackbone& model, const EngineOptions& options);

 private:
  /// What of them leaves memory and comes back changes the account.
  Status take_experts(const Module& base);
  Status hold(MemoryUse use, uint64_t bytes, const std::string& what);

  const DeploymentConfig& config_;
  Ledger ledger_;
  std::optional<AdapterStore> adapters_;
  std::vector<Ledger::Place> held_;
  std::shared_ptr<Ledger::Place> experts_;
  Ledger::Place cache_;
  uint64_t cache_bytes_ = 0;
};

}  // namespace chimera
