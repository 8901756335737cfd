#include "experts/lora/targets.h"

#include <array>

#include "experts/module/base_tensors.h"

namespace chimera {
namespace {

constexpr std::string_view kWeight = ".weight";
constexpr std::string_view kComposite = "language_model.";

std::string part_of(const ModelConfig& config, const std::string& tensor) {
  std::string_view name = tensor;
  if (name.starts_with(config.tensor_prefix)) name.remove_prefix(config.tensor_prefix.size());
  if (name.ends_with(kWeight)) name.remove_suffix(kWeight.size());
  return std::string(name);
}

void add_experts(const ModelConfig& config, int64_t layer, AdapterTargets& out) {
  for (int64_t e = 0; e < config.num_experts; ++e) {
    for (size_t p = 0; p < kProjections.size(); ++p) {
      const std::string name =
          single_tensor_name(config, layer, e, p, Encoding::kPlain, kWeightPart);
      const bool down = p == 2;
      const int64_t width = config.intermediate_size;
      out[part_of(config, name)] = {.layer = layer,
                                    .expert = e,
                                    .projection = p,
                                    .outputs = down ? config.hidden_size : width,
                                    .inputs = down ? width : config.hidden_size};
    }
  }
}

}  // namespace

AdapterTargets adapter_targets(const ModelConfig& config) {
  AdapterTargets out;
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    for (const NeededTensor& tensor : needed_layer_tensors(config, layer)) {
      if (tensor.shape.size() != 2) continue;
      out[part_of(config, tensor.name)] = {.layer = layer,
                                           .role = tensor.role,
                                           .outputs = tensor.shape[0],
                                           .inputs = tensor.shape[1]};
    }
    if (is_moe_layer(config, layer)) add_experts(config, layer, out);
  }
  return out;
}

std::string plain_part_name(std::string_view name) {
  std::string out(name);
  if (const size_t at = out.find(kComposite); at != std::string::npos)
    out.erase(at, kComposite.size());
  return out;
}

}  // namespace chimera
