#include "experts/module.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <set>

#include "backbone/safetensors.h"
#include "experts/module_files.h"
#include "experts/module_tensors.h"

namespace chimera {
namespace {

Status check_fit(const Manifest& manifest, const std::string& dir, const BackboneInfo& backbone) {
  if (manifest.kind == ModuleKind::kLibrary) {
    return {Code::kUnimplemented,
            fmt::format("module {}: found kind library (expected weights)", manifest.name),
            "This version loads modules of kind weights only."};
  }
  if (manifest.backbone_fingerprint != backbone.fingerprint) {
    return {Code::kFailedPrecondition,
            fmt::format("module {}: found backbone fingerprint {} (expected {})", manifest.name,
                        manifest.backbone_fingerprint, backbone.fingerprint),
            "This module was trained against another backbone."};
  }
  if (manifest.hidden_size != backbone.config.hidden_size) {
    return {Code::kFailedPrecondition,
            fmt::format("module {}: found backbone.hidden_size {} (expected {})", manifest.name,
                        manifest.hidden_size, backbone.config.hidden_size),
            "This module was trained against another backbone."};
  }
  if (manifest.layers && !manifest.layers->empty() &&
      manifest.layers->back() >= backbone.config.num_layers) {
    return {Code::kFailedPrecondition,
            fmt::format("module {}: found layer {} in layers (expected 0 to {})", manifest.name,
                        manifest.layers->back(), backbone.config.num_layers - 1)};
  }
  const bool has_weights =
      std::any_of(manifest.files.begin(), manifest.files.end(),
                  [](const ManifestFile& f) { return f.path.ends_with(".safetensors"); });
  if (!has_weights) {
    return {Code::kInvalidArgument,
            fmt::format("{}/module.yaml: files: found no .safetensors file (expected one or more)",
                        dir)};
  }
  return {};
}

Status check_digest(const std::string& path, const std::string& found,
                    const std::string& expected) {
  if (found == expected) return {};
  return {Code::kDataCorrupt,
          fmt::format("{}: found {} (expected {}, as module.yaml says)", path, found, expected),
          "Copy the module again; if the change is meant, run chimera-module seal."};
}

/// Opens every file of the manifest, compares digests, and keeps the tensors.
Result<std::vector<SafetensorsFile>> open_payload(const std::string& dir, const Manifest& m) {
  std::vector<SafetensorsFile> payload;
  for (const ManifestFile& entry : m.files) {
    const std::string path = dir + "/" + entry.path;
    Result<ModuleFile> file = ModuleFile::open(dir, entry.path);
    if (!file.ok()) return file.status();
    if (!entry.path.ends_with(".safetensors")) {
      const Result<std::string> digest = file->sha256();
      if (!digest.ok()) return digest.status();
      CHIMERA_RETURN_IF_ERROR(check_digest(path, *digest, entry.sha256));
      continue;
    }
    Result<SafetensorsFile> weights = file->safetensors();
    if (!weights.ok()) return weights.status();
    CHIMERA_RETURN_IF_ERROR(check_digest(path, weights->sha256(), entry.sha256));
    payload.push_back(std::move(*weights));
  }
  return payload;
}

Result<ModuleLayer> build_layer(const LayerTensors& tensors, const Manifest& manifest,
                                int64_t layer, const BackboneInfo& backbone) {
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
    if (!rows.ok()) return rows.status().with_context(fmt::format("layer {}", layer));
    part.gate_weight = std::move(*rows);
  }
  if (tensors.gate_bias != nullptr) {
    Result<std::vector<float>> bias = to_f32(*tensors.gate_bias, n);
    if (!bias.ok()) return bias.status();
    part.gate_bias = std::move(*bias);
  }
  return part;
}

/// Names of the checkpoint's tensors of one layer, whichever of the two layouts it has.
class BaseReader {
 public:
  BaseReader(const Checkpoint& checkpoint, const ModelConfig& config, Precision p)
      : checkpoint_(checkpoint), config_(config), names_(tensor_names(config)), precision_(p) {}

  Result<ModuleLayer> read(int64_t layer) const {
    ModuleLayer part;
    Result<std::vector<float>> gate = gate_rows(layer);
    if (!gate.ok()) return gate.status();
    part.gate_weight = std::move(*gate);
    const TensorView* fused =
        names_.fused_gate_up.empty()
            ? nullptr
            : checkpoint_.find(layer_tensor(config_, layer, names_.fused_gate_up));
    for (int64_t e = 0; e < config_.num_experts; ++e) {
      auto expert = fused != nullptr ? fused_expert(layer, e, *fused) : single_expert(layer, e);
      if (!expert.ok()) return expert.status();
      part.experts.push_back(std::move(*expert));
      part.slots.push_back(e);
    }
    return part;
  }

 private:
  using ExpertResult = Result<std::shared_ptr<const Expert>>;

  Result<std::vector<float>> gate_rows(int64_t layer) const {
    const std::array shape{config_.num_experts, config_.hidden_size};
    // The fused layout of transformers 5 renames mixtral's gate as well.
    const std::string fused_name = layer_tensor(config_, layer, "mlp.gate.weight");
    std::string name = layer_tensor(config_, layer, names_.gate);
    if (checkpoint_.find(name) == nullptr && checkpoint_.find(fused_name) != nullptr) {
      name = fused_name;
    }
    const Result<TensorView> gate = checkpoint_.require(name, shape);
    if (!gate.ok()) return gate.status();
    CHIMERA_RETURN_IF_ERROR(check_finite(*gate));
    return matrix_to_f32(*gate, config_.num_experts, config_.hidden_size);
  }

  Result<Matrix> projection(int64_t layer, int64_t e, const std::string& tail, int64_t rows,
                            int64_t cols) const {
    const std::string name = expert_tensor(config_, layer, e, tail);
    const TensorView* tensor = checkpoint_.find(name);
    if (tensor != nullptr) CHIMERA_RETURN_IF_ERROR(check_finite(*tensor));
    return checkpoint_.matrix(name, rows, cols, precision_);
  }

  ExpertResult single_expert(int64_t layer, int64_t e) const {
    const int64_t hidden = config_.hidden_size;
    const int64_t width = config_.intermediate_size;
    Result<Matrix> gate = projection(layer, e, names_.expert_gate, width, hidden);
    if (!gate.ok()) return gate.status();
    Result<Matrix> up = projection(layer, e, names_.expert_up, width, hidden);
    if (!up.ok()) return up.status();
    Result<Matrix> down = projection(layer, e, names_.expert_down, hidden, width);
    if (!down.ok()) return down.status();
    return make_swiglu_expert(std::move(*gate), std::move(*up), std::move(*down));
  }

  /// gate_up [E, 2 * width, hidden], gate rows first; down [E, hidden, width].
  ExpertResult fused_expert(int64_t layer, int64_t e, const TensorView& gate_up) const {
    const int64_t hidden = config_.hidden_size;
    const int64_t width = config_.intermediate_size;
    const std::string down_name = layer_tensor(config_, layer, names_.fused_down);
    const Result<TensorView> checked =
        checkpoint_.require(gate_up.name, std::array{config_.num_experts, 2 * width, hidden});
    if (!checked.ok()) return checked.status();
    const Result<TensorView> down_stack =
        checkpoint_.require(down_name, std::array{config_.num_experts, hidden, width});
    if (!down_stack.ok()) return down_stack.status();
    if (e == 0) {
      CHIMERA_RETURN_IF_ERROR(check_finite(gate_up));
      CHIMERA_RETURN_IF_ERROR(check_finite(*down_stack));
    }
    Result<Matrix> gate = slice_matrix(gate_up, e, 0, width, hidden, precision_);
    if (!gate.ok()) return gate.status();
    Result<Matrix> up = slice_matrix(gate_up, e, width, width, hidden, precision_);
    if (!up.ok()) return up.status();
    Result<Matrix> down = slice_matrix(*down_stack, e, 0, hidden, width, precision_);
    if (!down.ok()) return down.status();
    return make_swiglu_expert(std::move(*gate), std::move(*up), std::move(*down));
  }

  const Checkpoint& checkpoint_;
  const ModelConfig& config_;
  const TensorNames& names_;
  Precision precision_;
};

}  // namespace

uint64_t Module::resident_bytes() const {
  uint64_t bytes = 0;
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
  Result<Manifest> manifest = read_manifest(dir);
  if (!manifest.ok()) return manifest.status();
  CHIMERA_RETURN_IF_ERROR(check_fit(*manifest, dir, backbone));
  Result<std::vector<SafetensorsFile>> payload = open_payload(dir, *manifest);
  if (!payload.ok()) return payload.status();
  const std::string label = fmt::format("module {}", manifest->name);
  Result<ModuleTensors> tensors = sort_module_tensors(*payload);
  if (!tensors.ok()) return tensors.status().with_context(label);
  CHIMERA_RETURN_IF_ERROR(
      check_module_tensors(*tensors, *manifest, backbone.config).with_context(label));

  auto module = std::make_shared<Module>();
  for (const auto& [layer, part] : *tensors) {
    Result<ModuleLayer> built = build_layer(part, *manifest, layer, backbone);
    if (!built.ok()) return built.status().with_context(label);
    module->layers.emplace(layer, std::move(*built));
  }
  module->manifest = std::move(*manifest);
  module->dir = dir;
  return std::shared_ptr<const Module>(std::move(module));
}

Result<std::shared_ptr<const Module>> load_base_experts(const Checkpoint& checkpoint,
                                                        const ModelConfig& config, Precision p) {
  auto module = std::make_shared<Module>();
  module->manifest.name = "backbone";
  module->manifest.hidden_size = config.hidden_size;
  module->dir = checkpoint.dir();
  const BaseReader reader(checkpoint, config, p);
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    Result<ModuleLayer> part = reader.read(layer);
    if (!part.ok()) return part.status();
    module->layers.emplace(layer, std::move(*part));
  }
  return std::shared_ptr<const Module>(std::move(module));
}

}  // namespace chimera
