#include "experts/kinds/load.h"

#include "experts/kinds/assembly_module.h"
#include "experts/kinds/bundle_module.h"
#include "experts/kinds/library_module.h"
#include "experts/kinds/lora.h"
#include "experts/kinds/weights.h"

namespace chimera {

Result<std::shared_ptr<const Module>> load_module(const std::string& dir,
                                                  const BackboneInfo& backbone,
                                                  const ModuleOptions& options) {
  const Result<Manifest> manifest = read_manifest(dir);
  if (!manifest.ok()) return manifest.status();
  if (!options.lambda.empty() && manifest->kind != ModuleKind::kAssembly) {
    return no_parents(*manifest);
  }
  CHIMERA_RETURN_IF_ERROR(with_precision(backbone, *manifest, options.precision).status());
  CHIMERA_RETURN_IF_ERROR(check_weight(*manifest, options.weight));
  switch (manifest->kind) {
    case ModuleKind::kWeights:
      return load_weights_module(dir, backbone, options.precision);
    case ModuleKind::kLibrary:
      return load_library_module(dir, backbone);
    case ModuleKind::kLora:
      return load_lora_module(dir, backbone);
    case ModuleKind::kAssembly:
      return load_assembly_module(dir, backbone, options);
    case ModuleKind::kBundle:
      return load_bundle_module(dir, backbone, options);
  }
  return Status(Code::kInternal, dir + ": a module kind without a loader");
}

}  // namespace chimera
