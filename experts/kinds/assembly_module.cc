#include "experts/kinds/assembly_module.h"

#include <fmt/format.h>

#include "experts/assembly/in_memory.h"
#include "experts/kinds/weights.h"
#include "experts/module/outline.h"
#include "experts/module/payload.h"

namespace chimera {
namespace {

/// The manifest of what was made: what only the parents know is taken from them.
Manifest completed(Manifest manifest, const AssemblySource& source) {
  const Parent& base = *source.parents().front();
  if (!manifest.top_k && base.is_module()) manifest.top_k = base.manifest().fitted_top_k();
  return manifest;
}

/// A module of what differs has the layers in which something does.
void set_layers(const AssemblySource& source, const ModuleTensors& tensors, Manifest& manifest) {
  if (!source.only_differences()) return;
  manifest.layers.emplace();
  for (const auto& [layer, part] : tensors) manifest.layers->push_back(layer);
}

Result<std::shared_ptr<const Module>> make(std::shared_ptr<const AssemblySource> source,
                                           Manifest manifest, const std::string& dir,
                                           const ModuleOptions& options,
                                           const BackboneInfo& backbone) {
  const std::string label = "module " + manifest.name;
  const auto fitted = with_precision(backbone, manifest, options.precision);
  if (!fitted.ok()) return fitted.status();
  const Result<AssemblyPlan> plan = source->plan(options.lambda);
  if (!plan.ok()) return plan.status().with_context(label);
  const Result<std::vector<TensorView>> made = assemble_tensors(*plan);
  if (!made.ok()) return made.status().with_context(label);
  // Only now is it known that all of it was read from what was verified.
  CHIMERA_RETURN_IF_ERROR(source->check_unchanged().with_context(label));
  const Result<ModuleTensors> tensors = sort_module_tensors(*made);
  if (!tensors.ok()) return tensors.status().with_context(label);
  set_layers(*source, *tensors, manifest);
  CHIMERA_RETURN_IF_ERROR(
      check_module_tensors(*tensors, manifest, backbone.config).with_context(label));
  auto layers = build_module_layers(*tensors, manifest, *fitted);
  if (!layers.ok()) return layers.status();
  auto module = std::make_shared<Module>();
  module->layers = std::move(*layers);
  module->manifest = std::move(manifest);
  module->dir = dir;
  if (options.lambda != source->lambdas()) module->lambda = options.lambda;
  module->asked_precision = options.precision;
  module->precision = fitted->precision;
  module->assembly = std::move(source);
  return std::shared_ptr<const Module>(std::move(module));
}

}  // namespace

Result<std::shared_ptr<const Module>> load_assembly_module(const std::string& dir,
                                                           const BackboneInfo& backbone,
                                                           const ModuleOptions& options) {
  const Result<Manifest> manifest = read_manifest(dir);
  if (!manifest.ok()) return manifest.status();
  const std::string label = "module " + manifest->name;
  CHIMERA_RETURN_IF_ERROR(check_module_fit(*manifest, backbone.config, backbone.fingerprint));
  if (backbone.accept) CHIMERA_RETURN_IF_ERROR(backbone.accept(dir, *manifest));
  auto source = AssemblySource::open(dir, *manifest);
  if (!source.ok()) return source.status().with_context(label);
  ModuleOptions wanted{(*source)->lambdas(), options.precision};
  if (!options.lambda.empty()) {
    auto complete = complete_lambdas((*source)->recipe(), wanted.lambda, options.lambda);
    if (!complete.ok()) return complete.status().with_context(label);
    wanted.lambda = std::move(*complete);
  }
  CHIMERA_RETURN_IF_ERROR((*source)->verify().with_context(label));
  Manifest whole = completed(*manifest, **source);
  return make(std::move(*source), std::move(whole), dir, wanted, backbone);
}

Result<std::shared_ptr<const Module>> blend_module(std::shared_ptr<const AssemblySource> source,
                                                   const Manifest& manifest, const std::string& dir,
                                                   const ModuleOptions& options,
                                                   const BackboneInfo& backbone) {
  return make(std::move(source), manifest, dir, options, backbone);
}

Status no_parents(const Manifest& manifest) {
  return {Code::kFailedPrecondition,
          fmt::format("module {}: found kind {} (expected assembly: it has no parents whose "
                      "coefficients could be set)",
                      manifest.name, kModuleKindNames.name(manifest.kind))};
}

Status check_assembly_outline(const AssemblySource& source, const Manifest& manifest,
                              const BackboneInfo& backbone) {
  const std::string label = "module " + manifest.name;
  CHIMERA_RETURN_IF_ERROR(check_module_fit(manifest, backbone.config, backbone.fingerprint));
  const Result<AssemblyPlan> plan = source.plan({});
  if (!plan.ok()) return plan.status().with_context(label);
  const std::vector<TensorView> headers = planned_tensors(*plan);
  const Result<ModuleTensors> tensors = sort_module_tensors(headers);
  if (!tensors.ok()) return tensors.status().with_context(label);
  Manifest whole = manifest;
  set_layers(source, *tensors, whole);
  return check_module_tensors(*tensors, whole, backbone.config, TensorDepth::kHeader)
      .with_context(label);
}

}  // namespace chimera
