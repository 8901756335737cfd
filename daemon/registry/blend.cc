// A blend: a module of kind assembly made again with other coefficients of its parents.
#include <fmt/format.h>

#include "base/threads/background.h"
#include "daemon/registry/impl.h"
#include "experts/kinds/assembly_module.h"

namespace chimera {
namespace {

/// The module to be blended, without keeping its experts alive.
struct Blended {
  ModuleLoader::Assembled from;
  CompositionModule entry;  // as it is
  Lambdas lambda;           // in force
};

Result<Blended> find_assembly(const LoadedComposition& now, const std::string& name) {
  for (size_t i = 0; i < now.modules.size(); ++i) {
    if (now.composition.modules[i].name != name) continue;
    const Module& module = *now.modules[i];
    if (module.assembly == nullptr) return no_parents(module.manifest);
    return Blended{{module.assembly, module.manifest, module.dir, module.asked_precision},
                   now.composition.modules[i],
                   module.lambda.empty() ? module.assembly->lambdas() : module.lambda};
  }
  return unknown_module(now.composition, name);
}

}  // namespace

Result<ChangeReport> Registry::Impl::make(const BlendArgs& args, const Running& running) {
  CHIMERA_RETURN_IF_ERROR(wanted(running));
  CHIMERA_RETURN_IF_ERROR(no_change_beside_canary());
  const Result<Blended> was = find_assembly(current().loaded, args.name);
  if (!was.ok()) return was.status();
  const std::string label = "module " + args.name;
  const Result<Lambdas> lambda =
      complete_lambdas(was->from.source->recipe(), was->lambda, args.lambda);
  if (!lambda.ok()) return lambda.status().with_context(label);
  Result<std::shared_ptr<const Module>> made = std::shared_ptr<const Module>();
  if (*lambda != was->lambda) {
    const BackgroundScope background(options.engine->foreground());
    made = options.loader->blend(was->from, *lambda, running.job.get());
    if (!made.ok()) return made.status().with_context(label);
  }
  const auto put = [&](LoadedComposition* next) -> Status {
    const CompositionModule* is = next->composition.find(args.name);
    if (is == nullptr || is->digest != was->entry.digest || is->lambda != was->entry.lambda ||
        is->precision != was->entry.precision) {
      return overtaken();
    }
    if (*made == nullptr) return {};  // nothing changes
    const bool enabled = is->enabled;
    const float bias = is->bias;
    put_module(next, *made, enabled, bias);
    return {};
  };
  running.job->enter(JobPhase::kPublishing);
  return commit(running, put, args.in_flight);
}

}  // namespace chimera
