#include "experts/module.h"

#include "experts/base_tensors.h"
#include "experts/library_backend.h"
#include "experts/library_module.h"
#include "experts/module_payload.h"

namespace chimera {
namespace {

Result<ModuleLayer> build_layer(const LayerTensors& tensors, const Manifest& manifest,
                                const BackboneInfo& backbone) {
  ModuleLayer part;
  const int64_t hidden = backbone.config.hidden_size;
  const auto n = static_cast<int64_t>(tensors.experts.size());
  for (const auto& [index, expert] : tensors.experts) {
    if (manifest.attach == Attach::kReplace) part.slots.push_back(index);
    const int64_t width = expert[0]->shape[0];
    Result<Matrix> gate = to_matrix(*expert[0], width, hidden, backbone.precision);
    if (!gate.ok()) return gate.status();
    Result<Matrix> up = to_matrix(*expert[1], width, hidden, backbone.precision);
    if (!up.ok()) return up.status();
    Result<Matrix> down = to_matrix(*expert[2], hidden, width, backbone.precision);
    if (!down.ok()) return down.status();
    part.experts.push_back(make_swiglu_expert(std::move(*gate), std::move(*up), std::move(*down)));
  }
  if (tensors.gate_weight != nullptr) {
    Result<std::vector<float>> rows = matrix_to_f32(*tensors.gate_weight, n, hidden);
    if (!rows.ok()) return rows.status();
    part.gate_weight = std::move(*rows);
  }
  if (tensors.gate_bias != nullptr) {
    Result<std::vector<float>> bias = to_f32(*tensors.gate_bias, n);
    if (!bias.ok()) return bias.status();
    part.gate_bias = std::move(*bias);
  }
  return part;
}

Result<ModuleLayer> build_base_layer(const BaseLayer& tensors, const ModelConfig& config,
                                     Precision p) {
  ModuleLayer part;
  const int64_t hidden = config.hidden_size;
  const int64_t width = config.intermediate_size;
  CHIMERA_RETURN_IF_ERROR(check_finite(tensors.gate));
  Result<std::vector<float>> rows = matrix_to_f32(tensors.gate, config.num_experts, hidden);
  if (!rows.ok()) return rows.status();
  part.gate_weight = std::move(*rows);
  for (const ExpertViews& expert : tensors.experts) {
    for (const TensorView& view : expert) CHIMERA_RETURN_IF_ERROR(check_finite(view));
    Result<Matrix> gate = to_matrix(expert[0], width, hidden, p);
    if (!gate.ok()) return gate.status();
    Result<Matrix> up = to_matrix(expert[1], width, hidden, p);
    if (!up.ok()) return up.status();
    Result<Matrix> down = to_matrix(expert[2], hidden, width, p);
    if (!down.ok()) return down.status();
    part.slots.push_back(static_cast<int64_t>(part.experts.size()));
    part.experts.push_back(make_swiglu_expert(std::move(*gate), std::move(*up), std::move(*down)));
  }
  return part;
}

}  // namespace

uint64_t Module::resident_bytes() const {
  uint64_t bytes = library ? library->resident_bytes() : 0;
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

Result<std::shared_ptr<const Module>> load_module(const std::string& dir,
                                                  const BackboneInfo& backbone) {
  const Result<Manifest> manifest = read_manifest(dir);
  if (!manifest.ok()) return manifest.status();
  if (manifest->kind == ModuleKind::kLibrary) return load_library_module(dir, backbone);
  Result<ModulePayload> payload = open_module_payload(dir, backbone.config, backbone.fingerprint);
  if (!payload.ok()) return payload.status();
  auto module = std::make_shared<Module>();
  for (const auto& [layer, part] : payload->tensors) {
    Result<ModuleLayer> built = build_layer(part, payload->manifest, backbone);
    if (!built.ok()) return built.status().with_context("module " + payload->manifest.name);
    module->layers.emplace(layer, std::move(*built));
  }
  module->manifest = std::move(payload->manifest);
  module->dir = dir;
  return std::shared_ptr<const Module>(std::move(module));
}

Result<std::shared_ptr<const Module>> load_base_experts(const Checkpoint& checkpoint,
                                                        const ModelConfig& config, Precision p) {
  auto module = std::make_shared<Module>();
  module->manifest.name = "backbone";
  module->manifest.hidden_size = config.hidden_size;
  module->dir = checkpoint.dir();
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    const Result<BaseLayer> tensors = read_base_layer(checkpoint, config, layer);
    if (!tensors.ok()) return tensors.status();
    Result<ModuleLayer> part = build_base_layer(*tensors, config, p);
    if (!part.ok()) return part.status().with_context(checkpoint.dir());
    module->layers.emplace(layer, std::move(*part));
  }
  return std::shared_ptr<const Module>(std::move(module));
}

}  // namespace chimera
