// What a daemon begins with: the composition that it was last told, or its deployment's.
//
// Thread safety: free function, at the start, before anything else uses loader or store.
#pragma once

#include <cstdint>
#include <memory>

#include "daemon/config/config.h"
#include "daemon/registry/composer.h"
#include "daemon/registry/module_loader.h"
#include "daemon/registry/state/store.h"
#include "router/routing_table.h"

namespace chimera {

struct FirstEpoch {
  uint64_t epoch = 0;
  LoadedComposition loaded;
  uint64_t place = 0;  // in the history; EpochRecord::place
  /// The engine's: hand it over. Whoever keeps it keeps these modules in memory for good.
  std::shared_ptr<const RoutingTable> table;
  /// Keeps the average of its bundles until the registry does; goes with this.
  std::shared_ptr<const ActiveSet> used = nullptr;
};

/// Loads the last acknowledged composition that the store has of this backbone, else the
/// deployment's, and
/// records it as a new epoch. A module that no longer loads is left out with a warning naming it;
/// the daemon still starts.
Result<FirstEpoch> first_epoch(ModuleLoader* loader, StateStore* store,
                               const CompositionSpec& deployment);

}  // namespace chimera
