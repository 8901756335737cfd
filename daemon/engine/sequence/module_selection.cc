#include "daemon/engine/sequence/module_selection.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include <fmt/format.h>

namespace chimera {
namespace {

Status check_name(const std::string& name, const char* field, const RoutingTable& table) {
  if (table.module_index(name) >= 0) return {};
  std::string loaded;
  for (const auto& module : table.modules())
    loaded += (loaded.empty() ? "" : ", ") + module->name();
  return {Code::kNotFound,
          fmt::format("{}: module \"{}\" is not loaded (loaded: {})", field, name, loaded),
          "load the module first, or take its name out of the request"};
}

}  // namespace

Status check_modules(const ModuleSelection& selection, const RoutingTable& table) {
  if (selection.only) {
    for (const std::string& name : *selection.only)
      CHIMERA_RETURN_IF_ERROR(check_name(name, "modules.only", table));
  }
  for (const std::string& name : selection.exclude) {
    CHIMERA_RETURN_IF_ERROR(check_name(name, "modules.exclude", table));
    if (table.module_index(name) == 0)
      return {
          Code::kInvalidArgument,
          fmt::format("modules.exclude names \"{}\", whose experts every request may use", name),
          "exclude modules only"};
  }
  for (const auto& [name, bias] : selection.bias) {
    CHIMERA_RETURN_IF_ERROR(check_name(name, "modules.bias", table));
    if (!std::isfinite(bias))
      return {Code::kInvalidArgument,
              fmt::format("modules.bias of \"{}\" is {} (expected a finite number)", name, bias),
              "use modules.exclude to forbid a module"};
  }
  return {};
}

namespace {

/// Whether `mask` leaves no expert at all in some layer of the table.
bool nothing_left(const RoutingTable& table, ModuleMask mask) {
  return std::any_of(table.layers().begin(), table.layers().end(), [&](const LayerTable& layer) {
    return layer.candidates > 0 &&
           std::none_of(layer.owner.begin(), layer.owner.end(),
                        [&](int32_t owner) { return (mask >> owner & 1) != 0; });
  });
}

}  // namespace

ResolvedModules resolve_modules(const ModuleSelection& selection, const RoutingTable& table) {
  ResolvedModules out;
  const auto bit = [&](const std::string& name) {
    const int index = table.module_index(name);
    return index < 0 ? ModuleMask{0} : ModuleMask{1} << index;
  };
  if (selection.only) {
    ModuleMask named = 0;
    for (const std::string& name : *selection.only) named |= bit(name);
    out.mask |= named;
  } else {
    out.mask = table.all();
  }
  for (const std::string& name : selection.exclude) out.mask &= ~bit(name);
  out.mask |= 1;
  out.exhausted = nothing_left(table, out.mask);
  out.bias.assign(table.modules().size(), 0.0f);
  for (const auto& [name, bias] : selection.bias) {
    const int index = table.module_index(name);
    if (index >= 0) out.bias[static_cast<size_t>(index)] = bias;
  }
  return out;
}

}  // namespace chimera
