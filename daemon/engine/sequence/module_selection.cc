#include "daemon/engine/sequence/module_selection.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include <fmt/format.h>

#include "base/quote.h"

namespace chimera {
namespace {

/// Whether a client with `rights` may know of the module of that index.
bool visible(const RoutingTable& table, size_t index, const ModuleRightsPtr& rights) {
  return index == 0 || admits(rights, table.modules()[index]->name());
}

bool is_adapter(const RoutingTable& table, size_t index) {
  return table.modules()[index]->is_adapter();
}

std::string_view kind_of(const RoutingTable& table, const std::string& name) {
  const int index = table.module_index(name);
  return index == 0
             ? "backbone"
             : kModuleKindNames.name(table.modules()[static_cast<size_t>(index)]->manifest.kind);
}

Status check_name(const std::string& name, const char* field, const RoutingTable& table,
                  const ModuleRightsPtr& rights) {
  const int found = table.module_index(name);
  if (found >= 0 && visible(table, static_cast<size_t>(found), rights)) return {};
  std::string loaded;
  for (size_t i = 0; i < table.modules().size(); ++i) {
    if (!visible(table, i, rights)) continue;
    loaded += (loaded.empty() ? "" : ", ") + table.modules()[i]->name();
  }
  return {Code::kNotFound,
          fmt::format("{}: module {} is not loaded (loaded: {})", field, quote(name), loaded),
          "load the module first, or take its name out of the request"};
}

}  // namespace

Status check_modules(const ModuleSelection& selection, const RoutingTable& table) {
  const ModuleRightsPtr& rights = selection.rights;
  if (selection.only) {
    for (const std::string& name : *selection.only)
      CHIMERA_RETURN_IF_ERROR(check_name(name, "modules.only", table, rights));
  }
  for (const std::string& name : selection.adapters) {
    CHIMERA_RETURN_IF_ERROR(check_name(name, "modules.adapters", table, rights));
    if (!is_adapter(table, static_cast<size_t>(table.module_index(name))))
      return {Code::kInvalidArgument,
              fmt::format("modules.adapters names \"{}\", whose kind is {} (expected lora)", name,
                          kind_of(table, name)),
              "modules with experts are used unless modules.only leaves them out"};
  }
  for (const std::string& name : selection.exclude) {
    CHIMERA_RETURN_IF_ERROR(check_name(name, "modules.exclude", table, rights));
    if (table.module_index(name) == 0)
      return {
          Code::kInvalidArgument,
          fmt::format("modules.exclude names \"{}\", whose experts every request may use", name),
          "exclude modules only"};
  }
  for (const auto& [name, bias] : selection.bias) {
    CHIMERA_RETURN_IF_ERROR(check_name(name, "modules.bias", table, rights));
    if (!std::isfinite(bias))
      return {Code::kInvalidArgument,
              fmt::format("modules.bias of \"{}\" is {} (expected a finite number)", name, bias),
              "use modules.exclude to forbid a module"};
  }
  return {};
}

namespace {

/// Whether `mask` leaves no expert at all in some layer of the table.
bool nothing_left(const RoutingTable& table, const ModuleMask& mask) {
  return std::any_of(table.layers().begin(), table.layers().end(), [&](const LayerTable& layer) {
    return layer.candidates > 0 &&
           std::none_of(layer.owner.begin(), layer.owner.end(),
                        [&](int32_t owner) { return mask.has(static_cast<size_t>(owner)); });
  });
}

}  // namespace

ModuleMask permitted(const RoutingTable& table, const ModuleRightsPtr& rights) {
  if (rights == nullptr) return table.all();
  ModuleMask mask{0};
  for (size_t i = 1; i < table.modules().size(); ++i) {
    if (visible(table, i, rights)) mask.add(i);
  }
  return mask;
}

std::string visible_composition(const RoutingTable& table, const ModuleRightsPtr& rights) {
  if (rights == nullptr) return table.digest();
  Composition visible = table.composition();
  std::erase_if(visible.modules,
                [&](const CompositionModule& m) { return !rights->admits(m.name); });
  return visible.digest();
}

void hide_slots(RoutingTrace& trace, const RoutingTable& table, const ModuleRightsPtr& rights) {
  if (rights == nullptr || trace.rows == 0) return;
  const ModuleMask mask = permitted(table, rights);
  const auto per_layer = static_cast<size_t>(trace.rows * trace.k);
  for (size_t l = 0; l < table.layers().size() && (l + 1) * per_layer <= trace.ids.size(); ++l) {
    const LayerTable& layer = table.layers()[l];
    // Slots in order of their first candidate; those that only hidden modules have are left out.
    std::vector<int32_t> shown(static_cast<size_t>(layer.candidates), -1);
    for (size_t c = 0; c < layer.owner.size(); ++c) {
      const auto owner = static_cast<size_t>(layer.owner[c]);
      if (mask.has(owner)) shown[static_cast<size_t>(layer.slot[c])] = 0;
    }
    int32_t next = 0;
    for (int32_t& slot : shown) {
      if (slot == 0) slot = next++;
    }
    for (size_t i = l * per_layer; i < (l + 1) * per_layer; ++i) {
      if (trace.ids[i] >= 0) trace.ids[i] = shown[static_cast<size_t>(trace.ids[i])];
    }
  }
}

ResolvedModules resolve_modules(const ModuleSelection& selection, const RoutingTable& table) {
  ResolvedModules out;
  const auto add = [&](const std::vector<std::string>& names) {
    for (const std::string& name : names) {
      const int index = table.module_index(name);
      if (index >= 0) out.mask.add(static_cast<size_t>(index));
    }
  };
  if (selection.only) {
    add(*selection.only);
  } else {
    out.mask = table.layout()->unnamed();
  }
  add(selection.adapters);
  for (const std::string& name : selection.exclude) {
    const int index = table.module_index(name);
    if (index > 0) out.mask.remove(static_cast<size_t>(index));
  }
  if (selection.rights != nullptr) out.mask &= permitted(table, selection.rights);
  out.exhausted = nothing_left(table, out.mask);
  for (const auto& [name, bias] : selection.bias) {
    const int index = table.module_index(name);
    if (index < 0) continue;
    out.bias.resize(table.modules().size(), 0.0f);
    out.bias[static_cast<size_t>(index)] = bias;
  }
  return out;
}

Result<std::shared_ptr<const RouteView>> view_on(
    const std::shared_ptr<const RoutingTable>& table, const ModuleSelection& selection,
    std::span<const std::shared_ptr<const RouteView>> known) {
  ResolvedModules modules = resolve_modules(selection, *table);
  if (modules.exhausted) return Status(Code::kNotFound, "no module of modules.only is left");
  for (const auto& view : known) {
    if (view->mask() == modules.mask && view->request_bias == modules.bias) return view;
  }
  return make_route_view(table, modules.mask, std::move(modules.bias));
}

}  // namespace chimera
