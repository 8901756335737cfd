#include "experts/kinds/bundle_module.h"

#include <utility>

#include "experts/kinds/weights.h"
#include "experts/module/files.h"
#include "experts/module/outline.h"
#include "experts/module/payload.h"

namespace chimera {

Result<std::shared_ptr<const Module>> load_bundle_module(const std::string& dir,
                                                         const BackboneInfo& backbone,
                                                         const ModuleOptions& options) {
  const Result<Manifest> manifest = read_manifest(dir);
  if (!manifest.ok()) return manifest.status();
  // Before anything is read that cannot be used.
  CHIMERA_RETURN_IF_ERROR(
      check_bundle_outline(dir, *manifest, backbone.config, backbone.fingerprint));
  Result<ModulePayload> payload =
      open_module_payload(dir, backbone.config, backbone.fingerprint, backbone.digests.get(),
                          PayloadKinds::kWeightsAndBundles);
  if (!payload.ok()) return payload.status();
  if (backbone.accept) CHIMERA_RETURN_IF_ERROR(backbone.accept(dir, payload->manifest));
  const std::string label = "module " + payload->manifest.name;
  if (backbone.source == nullptr) {
    return Status(Code::kFailedPrecondition,
                  label + ": found no backbone in memory (expected it, for a bundle to change)",
                  "A daemon loads bundles; `chimera module verify` looks at them.");
  }
  auto changes =
      sort_shared_tensors(*payload->shared, backbone.config, TensorDepth::kContent, label);
  if (!changes.ok()) return changes.status();
  const double weight = options.weight.value_or(payload->manifest.shared->weight);
  auto bundle = Bundle::make(backbone.source, *payload->shared, weight, std::move(*changes));
  if (!bundle.ok()) return bundle.status().with_context(label);
  const auto fitted = with_precision(backbone, payload->manifest, options.precision);
  if (!fitted.ok()) return fitted.status();
  auto module = build_weights_module(dir, std::move(*payload), *fitted);
  if (!module.ok()) return module.status();
  (*module)->asked_precision = options.precision;
  (*module)->asked_weight = options.weight;
  (*module)->bundle = std::move(*bundle);
  return std::shared_ptr<const Module>(std::move(*module));
}

Status verify_bundle(const std::string& dir, const Manifest& manifest, const ModelConfig& config,
                     const std::string& fingerprint, const ModelConfig* shared_config) {
  const Result<ModulePayload> payload = open_module_payload(
      dir, manifest, config, fingerprint, nullptr, PayloadKinds::kWeightsAndBundles);
  if (!payload.ok()) return payload.status();
  const std::string label = "module " + manifest.name;
  if (shared_config != nullptr) {
    return sort_shared_tensors(*payload->shared, *shared_config, TensorDepth::kContent, label)
        .status();
  }
  for (const TensorView& tensor : payload->shared->tensors())
    CHIMERA_RETURN_IF_ERROR(check_finite(tensor).with_context(label));
  return {};
}

Result<std::vector<SharedChange>> bundle_changes(const std::string& dir, const Manifest& manifest,
                                                 const ModelConfig& config) {
  const Result<ModuleFile> file = ModuleFile::open(dir, manifest.shared->file);
  if (!file.ok()) return file.status();
  const Result<SafetensorsFile> header = file->header();
  if (!header.ok()) return header.status();
  return sort_shared_tensors(*header, config, TensorDepth::kHeader, "module " + manifest.name);
}

Status check_bundle_outline(const std::string& dir, const Manifest& manifest,
                            const ModelConfig& config, const std::string& fingerprint) {
  CHIMERA_RETURN_IF_ERROR(check_module_outline(dir, manifest, config, fingerprint));
  return bundle_changes(dir, manifest, config).status();
}

}  // namespace chimera
