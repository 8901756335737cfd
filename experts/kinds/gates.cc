#include "experts/kinds/gates.h"

#include <fmt/format.h>

#include <cstring>
#include <utility>

#include "compute/tensor/convert.h"
#include "experts/module/files.h"

namespace chimera {
namespace {

/// The tensors of a file, with the content of the gates among them.
Result<std::vector<TensorView>> with_gates(const ModuleFile& file, const SafetensorsFile& header) {
  std::vector<TensorView> tensors(header.tensors().begin(), header.tensors().end());
  for (TensorView& tensor : tensors) {
    if (tensor.name.find(".gate.") == std::string::npos) continue;
    Result<std::vector<std::byte>> content = file.content(header, tensor);
    if (!content.ok()) return content.status();
    const auto owner = std::make_shared<const std::vector<std::byte>>(std::move(*content));
    tensor.bytes = *owner;
    tensor.owner = owner;
    CHIMERA_RETURN_IF_ERROR(check_finite(tensor).with_context(file.label()));
  }
  return tensors;
}

}  // namespace

Status read_gate_values(const TensorView* tensor, int64_t n, std::vector<float>* out) {
  if (tensor == nullptr) return {};
  Result<std::vector<float>> values = to_f32(*tensor, n);
  if (!values.ok()) return values.status();
  *out = std::move(*values);
  return {};
}

Status read_gate(const LayerTensors& tensors, int64_t hidden, ModuleLayer* part) {
  const auto n = static_cast<int64_t>(tensors.experts.size());
  if (tensors.gate_weight != nullptr) {
    Result<std::vector<float>> rows = matrix_to_f32(*tensors.gate_weight, n, hidden);
    if (!rows.ok()) return rows.status();
    part->gate_weight = std::move(*rows);
  }
  CHIMERA_RETURN_IF_ERROR(read_gate_values(tensors.gate_bias, n, &part->gate_bias));
  CHIMERA_RETURN_IF_ERROR(
      read_gate_values(tensors.gate_score_correction, n, &part->gate_correction));
  if (tensors.gate_group != nullptr) {
    // The file may be another one than the outline saw.
    const TensorView& group = *tensors.gate_group;
    if (group.dtype != DType::kI32 ||
        group.bytes.size() != static_cast<size_t>(n) * sizeof(int32_t))
      return {Code::kFailedPrecondition,
              fmt::format("{}: found {} bytes (expected {} integers of 32 bits)", group.name,
                          group.bytes.size(), n)};
    part->gate_group.resize(static_cast<size_t>(n));
    std::memcpy(part->gate_group.data(), group.bytes.data(), group.bytes.size());
  }
  return {};
}

Result<std::shared_ptr<const Module>> gates_of_module(const std::string& dir,
                                                      const Manifest& manifest,
                                                      const BackboneInfo& backbone) {
  std::vector<SafetensorsFile> headers;  // keep the tensors
  std::vector<TensorView> tensors;
  for (const ManifestFile& entry : manifest.files) {
    const bool shared = manifest.shared && manifest.shared->file == entry.path;
    if (shared || !entry.path.ends_with(".safetensors")) continue;
    const Result<ModuleFile> file = ModuleFile::open(dir, entry.path);
    if (!file.ok()) return file.status();
    Result<SafetensorsFile> header = file->header();
    if (!header.ok()) return header.status();
    Result<std::vector<TensorView>> read = with_gates(*file, *header);
    if (!read.ok()) return read.status();
    tensors.insert(tensors.end(), read->begin(), read->end());
    headers.push_back(std::move(*header));
  }
  const Result<ModuleTensors> sorted = sort_module_tensors(tensors);
  if (!sorted.ok()) return sorted.status().with_context("module " + manifest.name);
  auto module = std::make_shared<Module>();
  module->manifest = manifest;
  module->dir = dir;
  for (const auto& [layer, stored] : *sorted) {
    ModuleLayer part;
    part.experts.resize(stored.experts.size());
    for (const auto& [slot, unused] : stored.experts) {
      if (manifest.attach == Attach::kReplace) part.slots.push_back(slot);
    }
    CHIMERA_RETURN_IF_ERROR(read_gate(stored, backbone.config.hidden_size, &part));
    for (const int32_t group : part.gate_group) {
      if (group >= -1 && group < backbone.config.n_group) continue;
      return Status(Code::kFailedPrecondition,
                    fmt::format("module {}: found gate group {} (expected -1 to {})", manifest.name,
                                group, backbone.config.n_group - 1));
    }
    module->layers.emplace(layer, std::move(part));
  }
  return std::shared_ptr<const Module>(std::move(module));
}

}  // namespace chimera
