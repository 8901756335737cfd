#include "backbone/checkpoint/check.h"

#include "backbone/families/needed_tensors.h"
#include "base/io/env.h"

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
  Result<ModelConfig> config =
      parse_model_config(checkpoint.config_json(), checkpoint.dir() + "/config.json");
  if (!config.ok()) return config;
  const std::string path = checkpoint.dir() + "/generation_config.json";
  const Result<std::string> text = read_file(Env::system(), path, kMostConfigBytes);
  if (!text.ok()) {
    if (text.status().code() == Code::kNotFound) return config;
    return text.status();
  }
  CHIMERA_RETURN_IF_ERROR(add_generation_config(*text, path, *config));
  return config;
}

Status check_backbone_tensors(const Checkpoint& checkpoint, const ModelConfig& config) {
  CHIMERA_RETURN_IF_ERROR(check_all(checkpoint, needed_model_tensors(config)));
  for (int64_t layer = 0; layer < config.num_layers; ++layer)
    CHIMERA_RETURN_IF_ERROR(check_all(checkpoint, needed_layer_tensors(config, layer)));
  return {};
}

}  // namespace chimera
