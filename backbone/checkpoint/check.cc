#include "backbone/checkpoint/check.h"

#include "backbone/families/needed_tensors.h"

namespace chimera {
namespace {

constexpr size_t kMostConfigBytes = 1 << 20;

Status check_all(const Checkpoint& checkpoint, const std::vector<NeededTensor>& needed) {
  for (const NeededTensor& t : needed)
    CHIMERA_RETURN_IF_ERROR(checkpoint.check_weights(t.name, t.shape));
  return {};
}

}  // namespace

Result<ModelConfig> read_model_config(const Checkpoint& checkpoint) {
  CHIMERA_RETURN_IF_ERROR(checkpoint.quantization_problem());
  Result<ModelConfig> config =
      parse_model_config(checkpoint.config_json(), checkpoint.label("config.json"));
  if (!config.ok()) return config;
  constexpr const char* kName = "generation_config.json";
  const auto text = checkpoint.side_file(kName, kMostConfigBytes);
  if (!text.ok()) return text.status();
  if (*text)
    CHIMERA_RETURN_IF_ERROR(add_generation_config(**text, checkpoint.label(kName), *config));
  return config;
}

Status check_backbone_tensors(const Checkpoint& checkpoint, const ModelConfig& config) {
  CHIMERA_RETURN_IF_ERROR(check_all(checkpoint, needed_model_tensors(config)));
  for (int64_t layer = 0; layer < config.num_layers; ++layer)
    CHIMERA_RETURN_IF_ERROR(check_all(checkpoint, needed_layer_tensors(config, layer)));
  return {};
}

}  // namespace chimera
