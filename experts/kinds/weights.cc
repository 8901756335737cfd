#include "experts/kinds/weights.h"

#include <algorithm>

#include "base/threads/each_parallel.h"
#include "compute/tensor/convert.h"
#include "compute/tensor/repack.h"
#include "compute/tensor/tensor_source.h"
#include "experts/kinds/gates.h"
#include "experts/module/base_tensors.h"

namespace chimera {
namespace {

/// Whether to_matrix uses a tensor of this dtype in place.
bool keeps(DType dtype, Precision p) {
  if (is_packed_type(dtype)) return true;
  if (is_block_type(dtype)) return !packed_format(p);
  return is_stored_as(dtype, kept_format(dtype, p));
}

/// MXFP4 has kernels of its own, for scales that are not too far apart; FP8 is packed as wider
/// numbers are.
Result<ExpertWeight> build_quantised(const StoredProjection& stored, Precision precision,
                                     BlockShape block) {
  ExpertWeight out;
  Result<QuantMatrix> matrix = quant_matrix(stored, block);
  if (!matrix.ok()) return matrix.status();
  if (packed_format(precision) && stored.encoding == Encoding::kMxfp4) {
    Result<std::optional<Matrix>> packed = repack_mxfp4(*matrix);
    if (!packed.ok()) return packed.status();
    if (*packed) {
      out.matrix = std::move(**packed);
      return out;
    }
  } else if (packed_format(precision)) {
    Result<Matrix> packed = widen_matrix(*matrix, precision);
    if (!packed.ok()) return packed.status();
    out.matrix = std::move(*packed);
    return out;
  }
  out.quantised = std::move(*matrix);
  return out;
}

/// Plain numbers as the kernels take them, quantised ones as they are stored.
class WeightBuilder {
 public:
  WeightBuilder(Precision precision, BlockShape block) : precision_(precision), block_(block) {}

  Result<std::shared_ptr<const Expert>> build(ExpertKind kind, const StoredExpert& stored) const {
    ExpertWeights weights;
    const std::array<ExpertWeight*, 3> targets{&weights.gate, &weights.up, &weights.down};
    const std::array<std::vector<float>*, 3> biases{&weights.gate_bias, &weights.up_bias,
                                                    &weights.down_bias};
    for (size_t p = 0; p < stored.size(); ++p) {
      Result<ExpertWeight> weight = build_weight(stored[p], precision_, block_);
      if (!weight.ok()) return weight.status();
      *targets[p] = std::move(*weight);
      if (!stored[p].bias) continue;
      Result<std::vector<float>> bias =
          to_f32(dense(*stored[p].bias, stored[p].bias->tensor.name), stored[p].rows);
      if (!bias.ok()) return bias.status();
      *biases[p] = std::move(*bias);
    }
    return make_expert(kind, std::move(weights));
  }

 private:
  Precision precision_;
  BlockShape block_;
};

Result<ModuleLayer> build_layer(const LayerTensors& tensors, const Manifest& manifest,
                                const BackboneInfo& backbone) {
  ModuleLayer part;
  const int64_t hidden = backbone.config.hidden_size;
  const WeightBuilder builder(backbone.precision, tensors.fp8_block);
  for (const auto& [index, expert] : tensors.experts) {
    if (manifest.attach == Attach::kReplace) part.slots.push_back(index);
    Result<std::shared_ptr<const Expert>> built =
        builder.build(backbone.config.expert_kind, stored_expert(expert));
    if (!built.ok()) return built.status();
    part.experts.push_back(std::move(*built));
  }
  CHIMERA_RETURN_IF_ERROR(read_gate(tensors, hidden, &part));
  return part;
}

Status build_base_gate(const BaseLayer& tensors, const ModelConfig& config, ModuleLayer& part) {
  CHIMERA_RETURN_IF_ERROR(check_finite_gate(tensors));
  Result<std::vector<float>> rows =
      matrix_to_f32(tensors.gate, config.num_experts, config.hidden_size);
  if (!rows.ok()) return rows.status();
  part.gate_weight = std::move(*rows);
  const auto read = [&](const std::optional<TensorView>& tensor, std::vector<float>& out) {
    return tensor ? read_gate_values(&*tensor, config.num_experts, &out) : Status();
  };
  CHIMERA_RETURN_IF_ERROR(read(tensors.gate_bias, part.gate_bias));
  CHIMERA_RETURN_IF_ERROR(read(tensors.score_correction, part.gate_correction));
  Result<std::vector<int32_t>> groups = base_groups(tensors, config);
  if (!groups.ok()) return groups.status();
  part.gate_group = std::move(*groups);
  return {};
}

Result<ModuleLayer> build_base_layer(const Checkpoint& checkpoint, const ModelConfig& config,
                                     int64_t layer, Precision p) {
  const Result<BaseLayer> tensors = read_base_layer(checkpoint, config, layer);
  if (!tensors.ok()) return tensors.status();
  ModuleLayer part;
  CHIMERA_RETURN_IF_ERROR(build_base_gate(*tensors, config, part).with_context(checkpoint.dir()));
  for (const StoredExpert& stored : tensors->experts) {
    auto built = build_base_expert(stored, config, checkpoint.block_shape(), p);
    if (!built.ok()) return built.status().with_context(checkpoint.dir());
    part.slots.push_back(static_cast<int64_t>(part.experts.size()));
    part.experts.push_back(std::move(*built));
    // What was transposed or converted is not needed twice.
    for (const StoredProjection& projection : stored) {
      if (!used_in_place(projection, p)) checkpoint.release(projection.weight.tensor);
    }
  }
  return part;
}

/// From the first to the last byte of its tensors.
HeldBytes held_bytes(const SafetensorsFile& file) {
  HeldBytes held{.owner = file.owner()};
  for (const TensorView& tensor : file.tensors()) {
    const auto begin = reinterpret_cast<uintptr_t>(tensor.bytes.data());
    if (tensor.bytes.empty()) continue;
    held.begin = held.end == 0 ? begin : std::min(held.begin, begin);
    held.end = std::max(held.end, begin + tensor.bytes.size());
  }
  return held;
}

}  // namespace

Result<std::shared_ptr<const Expert>> build_base_expert(const StoredExpert& stored,
                                                        const ModelConfig& config, BlockShape block,
                                                        Precision p) {
  StoredExpert expert = stored;
  for (StoredProjection& projection : expert) {
    Result<TensorView> made = loaded(projection.weight.tensor);
    if (!made.ok()) return made.status();
    projection.weight.tensor = std::move(*made);
    CHIMERA_RETURN_IF_ERROR(check_finite(projection, block));
  }
  return WeightBuilder(p, block).build(config.expert_kind, expert);
}

bool used_in_place(const StoredProjection& projection, Precision p) {
  if (projection.encoding != Encoding::kPlain && !packed_format(p)) return true;
  return projection.weight.tensor.source == nullptr && projection.weight.at.dense() &&
         keeps(projection.weight.tensor.dtype, p);
}

Result<ExpertWeight> build_weight(const StoredProjection& stored, Precision precision,
                                  BlockShape block) {
  if (stored.encoding != Encoding::kPlain) return build_quantised(stored, precision, block);
  const Result<TensorView> made = loaded(dense(stored.weight, stored.weight.tensor.name));
  if (!made.ok()) return made.status();
  ExpertWeight out;
  if (is_block_type(made->dtype) && !packed_format(precision)) {
    out.quantised = block_matrix(*made);
    return out;
  }
  Result<Matrix> matrix = to_matrix(*made, stored.rows, stored.cols, precision);
  if (!matrix.ok()) return matrix.status();
  out.matrix = std::move(*matrix);
  return out;
}

Result<std::map<int64_t, ModuleLayer>> build_module_layers(const ModuleTensors& tensors,
                                                           const Manifest& manifest,
                                                           const BackboneInfo& backbone) {
  std::map<int64_t, ModuleLayer> layers;
  for (const auto& [layer, part] : tensors) {
    Result<ModuleLayer> built = build_layer(part, manifest, backbone);
    if (!built.ok()) return built.status().with_context("module " + manifest.name);
    layers.emplace(layer, std::move(*built));
  }
  return layers;
}

Result<std::shared_ptr<Module>> build_weights_module(const std::string& dir, ModulePayload payload,
                                                     const BackboneInfo& backbone) {
  auto module = std::make_shared<Module>();
  auto layers = build_module_layers(payload.tensors, payload.manifest, backbone);
  if (!layers.ok()) return layers.status();
  module->precision = backbone.precision;
  module->layers = std::move(*layers);
  for (const SafetensorsFile& file : payload.files) module->held.push_back(held_bytes(file));
  if (payload.shared) module->held.push_back(held_bytes(*payload.shared));
  module->manifest = std::move(payload.manifest);
  module->dir = dir;
  return module;
}

Result<std::shared_ptr<const Module>> load_weights_module(const std::string& dir,
                                                          const BackboneInfo& backbone,
                                                          std::optional<Precision> precision) {
  Result<ModulePayload> payload =
      open_module_payload(dir, backbone.config, backbone.fingerprint, backbone.digests.get());
  if (!payload.ok()) return payload.status();
  if (backbone.accept) CHIMERA_RETURN_IF_ERROR(backbone.accept(dir, payload->manifest));
  const auto fitted = with_precision(backbone, payload->manifest, precision);
  if (!fitted.ok()) return fitted.status();
  auto module = build_weights_module(dir, std::move(*payload), *fitted);
  if (!module.ok()) return module.status();
  (*module)->asked_precision = precision;
  return std::shared_ptr<const Module>(std::move(*module));
}

Result<std::shared_ptr<const Module>> load_base_experts(const Checkpoint& checkpoint,
                                                        const ModelConfig& config, Precision p) {
  auto module = std::make_shared<Module>();
  module->manifest.name = "backbone";
  module->manifest.hidden_size = config.hidden_size;
  module->dir = checkpoint.dir();
  const std::vector<int64_t> layers = moe_layers(config);
  std::vector<ModuleLayer> parts(layers.size());
  CHIMERA_RETURN_IF_ERROR(for_each_parallel(static_cast<int64_t>(layers.size()), [&](int64_t i) {
    const auto at = static_cast<size_t>(i);
    Result<ModuleLayer> part = build_base_layer(checkpoint, config, layers[at], p);
    if (part.ok()) parts[at] = std::move(*part);
    return part.status();
  }));
  for (size_t i = 0; i < layers.size(); ++i) {
    module->layers.emplace(layers[i], std::move(parts[i]));
  }
  return std::shared_ptr<const Module>(std::move(module));
}

}  // namespace chimera
