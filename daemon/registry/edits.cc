// Changes that load nothing: unload, bias, enable, disable.
#include "daemon/registry/impl.h"

namespace chimera {

Result<ChangeReport> Registry::Impl::make(const UnloadArgs& args, const Running& running) {
  const auto remove = [&](LoadedComposition* next) -> Status {
    if (next->composition.find(args.name) == nullptr) {
      return unknown_module(next->composition, args.name);
    }
    const Composition before = next->composition;
    remove_module(next, args.name);
    set_aside_missing(before, next);
    return {};
  };
  return commit(running, remove, InFlight::kPin);
}

Result<ChangeReport> Registry::Impl::make(const UnloadFromArgs& args, const Running& running) {
  const auto remove = [&](LoadedComposition* next) -> Status {
    for (const CompositionModule& module : next->composition.modules) {
      if (module.path != args.path) continue;
      remove_module(next, std::string(module.name));
      return {};
    }
    return {Code::kNotFound, "module: found none loaded from " + args.path};
  };
  return commit(running, remove, InFlight::kPin);
}

Result<ChangeReport> Registry::Impl::make(const EditArgs& args, const Running& running) {
  const auto set = [&](LoadedComposition* next) -> Status {
    if (next->composition.find(args.name) == nullptr) {
      return unknown_module(next->composition, args.name);
    }
    if (args.edit.bias) CHIMERA_RETURN_IF_ERROR(check_bias(args.name, *args.edit.bias));
    edit_module(next, args.name, args.edit);
    return {};
  };
  return commit(running, set, InFlight::kPin);
}

}  // namespace chimera
