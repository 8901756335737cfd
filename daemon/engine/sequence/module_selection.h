// What a request's modules {only, exclude, bias} mean on one routing table.
//
// Module indexes are those of one table, so a selection is resolved again for every table that a
// sequence moves to. Thread safety: free functions over values.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "daemon/engine/sequence/request.h"
#include "router/moe.h"
#include "router/routing_table.h"

namespace chimera {

struct ResolvedModules {
  ModuleMask mask{0};       // the backbone's experts are always permitted
  std::vector<float> bias;  // per module of the table; empty: none
  /// In some layer nothing that has experts there is permitted, which takes a backbone without any
  /// of its own in that layer.
  bool exhausted = false;
};

/// Ok when every name is in the table; otherwise not_found naming the module and those there are,
/// or invalid_argument for what can never hold (excluding the backbone, a bias that is no number).
Status check_modules(const ModuleSelection& selection, const RoutingTable& table);

/// The modules of the table that a client with `rights` may use, and the backbone.
ModuleMask permitted(const RoutingTable& table, const ModuleRightsPtr& rights);
/// The digest that the table's composition would have without the modules outside of `rights`.
std::string visible_composition(const RoutingTable& table, const ModuleRightsPtr& rights);
/// Numbers the slots of a trace as if only the modules within `rights` were in the table.
void hide_slots(RoutingTrace& trace, const RoutingTable& table, const ModuleRightsPtr& rights);

/// The view of a request on a table; not_found when nothing that it asked for is there. One of
/// `known`, which are views on that table, when that is the same.
Result<std::shared_ptr<const RouteView>> view_on(
    const std::shared_ptr<const RoutingTable>& table, const ModuleSelection& selection,
    std::span<const std::shared_ptr<const RouteView>> known = {});

/// Names that are not in the table, or outside of the client's rights, have no effect.
ResolvedModules resolve_modules(const ModuleSelection& selection, const RoutingTable& table);

}  // namespace chimera
