#include "experts/kinds/module.h"

#include <fmt/format.h>

#include "experts/library/backend.h"

namespace chimera {

uint64_t Module::resident_bytes() const {
  uint64_t bytes = library ? library->resident_bytes() : 0;
  if (adapter) bytes += adapter->bytes;
  if (adapter_source) bytes += adapter_source->resident_bytes();
  if (bundle) bytes += bundle->resident_bytes();
  for (const auto& [index, layer] : layers) {
    bytes += (layer.gate_weight.size() + layer.gate_bias.size()) * sizeof(float);
    for (const auto& expert : layer.experts) bytes += expert->resident_bytes();
  }
  return bytes;
}

int64_t Module::expert_count() const {
  int64_t count = 0;
  for (const auto& [index, layer] : layers) count += static_cast<int64_t>(layer.experts.size());
  return count;
}

Result<BackboneInfo> with_precision(const BackboneInfo& backbone, const Manifest& manifest,
                                    std::optional<Precision> asked) {
  if (asked && !manifest.takes_precision()) {
    return Status(Code::kFailedPrecondition,
                  fmt::format("module {}: precision: found {} (expected none: modules of kind {} "
                              "have no weights to keep in it)",
                              manifest.name, kPrecisionNames.name(*asked),
                              kModuleKindNames.name(manifest.kind)),
                  "Leave the precision of this module out");
  }
  BackboneInfo out = backbone;
  out.precision = asked.value_or(manifest.precision.value_or(backbone.precision));
  return out;
}

Status check_weight(const Manifest& manifest, std::optional<double> asked) {
  if (!asked || manifest.kind == ModuleKind::kBundle) return {};
  return {Code::kFailedPrecondition,
          fmt::format("module {}: weight: found {} (expected none: modules of kind {} change "
                      "nothing of the backbone that could be averaged)",
                      manifest.name, *asked, kModuleKindNames.name(manifest.kind)),
          "Leave the weight of this module out"};
}

}  // namespace chimera
