#include "experts/offline/graft_layer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "compute/tensor/memory.h"
#include "experts/offline/cut_output.h"

namespace chimera {
namespace {

bool all_zero(const TensorView& tensor) {
  return std::all_of(tensor.bytes.begin(), tensor.bytes.end(),
                     [](std::byte b) { return b == std::byte{0}; });
}

/// Copies row `row` of `from` as `dtype`, F32 when it is another than the stored one.
void copy_row(const TensorView& from, int64_t row, DType dtype, int64_t cols, std::byte* to) {
  const size_t unit = unit_bytes(from.dtype);
  const auto n = static_cast<size_t>(cols);
  const std::byte* at = from.bytes.data() + static_cast<size_t>(row) * n * unit;
  if (from.dtype == dtype) {
    std::memcpy(to, at, n * unit);
    return;
  }
  for (size_t i = 0; i < n; ++i) {
    uint16_t bits = 0;
    std::memcpy(&bits, at + 2 * i, sizeof(bits));
    const float value = from.dtype == DType::kF16 ? f16_to_f32(bits) : bf16_to_f32(bits);
    std::memcpy(to + 4 * i, &value, sizeof(value));
  }
}

}  // namespace

GraftLayer::GraftLayer(const ModelConfig& config, int64_t layer, BaseLayer base,
                       std::vector<int32_t> groups, int64_t experts)
    : config_(config),
      layer_(layer),
      base_(std::move(base)),
      base_groups_(std::move(groups)),
      placed_(static_cast<size_t>(experts)),
      next_(static_cast<size_t>(config.num_experts)) {}

Result<GraftLayer::Placed> GraftLayer::from_module(const std::string& module,
                                                   const LayerTensors& part, int64_t number) const {
  if (part.gate_bias != nullptr && !config_.gate_bias && !all_zero(*part.gate_bias)) {
    return Status(Code::kFailedPrecondition,
                  fmt::format("module {}, layer {}: found a gate bias (expected none: {} has no "
                              "place for it)",
                              module, layer_, config_.model_type));
  }
  Placed placed;
  placed.owner = module;
  placed.expert = stored_expert(part.experts.at(number));
  for (const StoredProjection& projection : placed.expert) {
    if (!is_packed_type(projection.weight.tensor.dtype)) continue;
    return Status(Code::kFailedPrecondition,
                  fmt::format("module {}, layer {}: found weights packed for the kernels (expected "
                              "those of a checkpoint)",
                              module, layer_),
                  "Graft the module that it was packed from.");
  }
  if (placed.expert[0].rows != config_.intermediate_size) {
    return Status(Code::kFailedPrecondition,
                  fmt::format("module {}, layer {}: found experts {} wide (expected {}, as the "
                              "backbone's)",
                              module, layer_, placed.expert[0].rows, config_.intermediate_size));
  }
  return placed;
}

Status GraftLayer::append(const std::string& module, const LayerTensors& part,
                          const std::vector<int64_t>* slots) {
  for (const auto& [e, tensors] : part.experts) {
    const size_t at =
        slots != nullptr ? static_cast<size_t>((*slots)[static_cast<size_t>(e)]) : next_++;
    Result<Placed> placed = from_module(module, part, e);
    if (!placed.ok()) return placed.status();
    placed->gate = {part.gate_weight, e};
    placed->bias = {part.gate_bias, e};
    placed->correction = {part.gate_score_correction, e};
    if (part.gate_group != nullptr) {
      std::memcpy(&placed->group, part.gate_group->bytes.data() + e * 4, sizeof(int32_t));
    }
    placed_[at] = std::move(*placed);
  }
  return {};
}

void GraftLayer::place_base() {
  const auto row = [](const std::optional<TensorView>& tensor, size_t e) {
    return tensor ? Row{&*tensor, static_cast<int64_t>(e)} : Row{};
  };
  for (size_t at = 0; at < placed_.size(); ++at) {
    if (placed_[at]) continue;
    const size_t e = base_at_.size();
    Placed placed;
    placed.owner = "backbone";
    placed.expert = base_.experts[e];
    placed.gate = {&base_.gate, static_cast<int64_t>(e)};
    placed.bias = row(base_.gate_bias, e);
    placed.correction = row(base_.score_correction, e);
    if (!base_groups_.empty()) placed.group = base_groups_[e];
    placed_[at] = std::move(placed);
    base_at_.push_back(at);
  }
}

Status GraftLayer::replace(const std::string& module, const LayerTensors& part) {
  int64_t number = 0;
  for (const auto& [slot, tensors] : part.experts) {
    Result<Placed> placed = from_module(module, part, slot);
    if (!placed.ok()) return placed.status();
    Placed& target = *placed_[base_at_[static_cast<size_t>(slot)]];
    target.owner = module;
    target.expert = std::move(placed->expert);
    // As the routing table does it: own rows bring their own bias, the correction stays the slot's
    // unless the module has one.
    if (part.gate_weight != nullptr) target.gate = {part.gate_weight, number};
    if (part.gate_weight != nullptr || part.gate_bias != nullptr) {
      target.bias = {part.gate_bias, number};
    }
    if (part.gate_score_correction != nullptr) {
      target.correction = {part.gate_score_correction, number};
    }
    ++number;
  }
  return {};
}

Status GraftLayer::check_groups() const {
  if (config_.n_group <= 1) return {};
  const auto experts = static_cast<int64_t>(placed_.size());
  const int64_t size = experts / config_.n_group;
  for (int64_t e = 0; e < experts; ++e) {
    const Placed& placed = *placed_[static_cast<size_t>(e)];
    if (size * config_.n_group == experts && placed.group == e / size) continue;
    return {Code::kFailedPrecondition,
            fmt::format("layer {}: expert {} (of {}) is of group {} among {} experts (expected {} "
                        "contiguous groups of one size, as a checkpoint of {} has them)",
                        layer_, e, placed.owner, placed.group, experts, config_.n_group,
                        config_.model_type)};
  }
  return {};
}

Status GraftLayer::write(std::vector<TensorView>& tensors) const {
  CHIMERA_RETURN_IF_ERROR(check_groups());
  if (!config_.dense_base) {
    tensors.push_back(rows_tensor(base_.gate, &Placed::gate));
    if (base_.gate_bias) tensors.push_back(rows_tensor(*base_.gate_bias, &Placed::bias));
    if (base_.score_correction) {
      tensors.push_back(rows_tensor(*base_.score_correction, &Placed::correction));
    }
  }
  return base_.stacks ? write_stacks(tensors) : write_single(tensors);
}

/// The rows of all experts under the base tensor's name.
TensorView GraftLayer::rows_tensor(const TensorView& base, Row Placed::*row) const {
  DType dtype = base.dtype;
  for (const auto& placed : placed_) {
    const TensorView* from = ((*placed).*row).from;
    if (from != nullptr && from->dtype != dtype) dtype = DType::kF32;  // exact for F16 and BF16
  }
  std::vector<int64_t> shape = base.shape;
  const int64_t cols = base.elements() / shape[0];
  shape[0] = static_cast<int64_t>(placed_.size());
  std::byte* to = nullptr;
  TensorView tensor = make_tensor(base.name, dtype, std::move(shape), &to);
  for (const auto& placed : placed_) {
    const Row& source = (*placed).*row;
    if (source.from != nullptr) copy_row(*source.from, source.row, dtype, cols, to);
    to += static_cast<size_t>(cols) * unit_bytes(dtype);
  }
  return tensor;
}

/// `model` is the part of a base expert, `found` that of the placed one; either may be missing.
Status GraftLayer::check_part(const Placed& placed, size_t projection, Part part,
                              const StoredPart* model, const StoredPart* found) const {
  const auto refuse = [&](const std::string& what, const std::string& expected) {
    return Status(Code::kFailedPrecondition,
                  fmt::format("module {}, layer {}, {}{}: found {} (expected {}, as the backbone's "
                              "experts)",
                              placed.owner, layer_, kProjections[projection],
                              part_tail(placed.expert[projection].encoding, part), what, expected));
  };
  if (found == nullptr) {
    if (model == nullptr || part == kBiasPart) return {};  // a missing bias is zero
    return refuse("none", "one");
  }
  if (model == nullptr) {
    if (part == kBiasPart && all_zero(found->tensor)) return {};
    return refuse("one", "none");
  }
  const bool stacked = base_.stacks.has_value();
  const bool plain = placed.expert[projection].encoding == Encoding::kPlain;
  if (found->shape != model->shape) {
    return refuse(shape_string(found->shape), shape_string(model->shape));
  }
  // Tensors of their own may differ in dtype from one expert to the next, a stack has one.
  if (found->tensor.dtype != model->tensor.dtype && (stacked || !plain)) {
    return refuse("dtype " + std::string(dtype_name(found->tensor.dtype)),
                  std::string(dtype_name(model->tensor.dtype)));
  }
  return {};
}

Status GraftLayer::write_single(std::vector<TensorView>& tensors) const {
  for (size_t e = 0; e < placed_.size(); ++e) {
    const Placed& placed = *placed_[e];
    for (size_t p = 0; p < placed.expert.size(); ++p) {
      const StoredProjection& model = base_.experts[0][p];
      const StoredProjection& found = placed.expert[p];
      if (found.encoding != model.encoding) {
        return {Code::kFailedPrecondition,
                fmt::format("module {}, layer {}, {}: found another encoding than the backbone's "
                            "experts have (expected the same)",
                            placed.owner, layer_, kProjections[p])};
      }
      for (const Part part : {kWeightPart, kScalePart, kBiasPart}) {
        const StoredPart* stored = part_of(found, part);
        const StoredPart* wanted = part_of(model, part);
        CHIMERA_RETURN_IF_ERROR(check_part(placed, p, part, wanted, stored));
        if (wanted == nullptr) continue;
        std::string name =
            single_tensor_name(config_, layer_, static_cast<int64_t>(e), p, found.encoding, part);
        if (stored != nullptr) {
          tensors.push_back(dense(*stored, std::move(name)));
        } else {
          std::byte* zeros = nullptr;
          tensors.push_back(
              make_tensor(std::move(name), wanted->tensor.dtype, wanted->shape, &zeros));
        }
      }
    }
  }
  return {};
}

Status GraftLayer::write_stacks(std::vector<TensorView>& tensors) const {
  const StackLayout& layout = *base_.stacks;
  const size_t first = tensors.size();
  std::vector<std::byte*> memory(layout.stacks.size());
  std::vector<DType> dtypes(layout.stacks.size());
  for (size_t p = 0; p < kProjections.size(); ++p) {
    for (const Part part : {kWeightPart, kScalePart, kBiasPart}) {
      const auto& place = layout.places[p][part];
      if (place) dtypes[place->stack] = part_of(base_.experts[0][p], part)->tensor.dtype;
    }
  }
  for (size_t i = 0; i < layout.stacks.size(); ++i) {
    std::vector<int64_t> shape = layout.stacks[i].shape;
    shape.insert(shape.begin(), static_cast<int64_t>(placed_.size()));
    tensors.push_back(make_tensor(layer_tensor(config_, layer_, layout.stacks[i].tail), dtypes[i],
                                  std::move(shape), &memory[i]));
  }
  for (size_t e = 0; e < placed_.size(); ++e) {
    const Placed& placed = *placed_[e];
    for (size_t p = 0; p < placed.expert.size(); ++p) {
      if (placed.expert[p].encoding != layout.encoding) {
        return {Code::kFailedPrecondition,
                fmt::format("module {}, layer {}, {}: found another encoding than the backbone's "
                            "experts have (expected the same)",
                            placed.owner, layer_, kProjections[p])};
      }
      for (const Part part : {kWeightPart, kScalePart, kBiasPart}) {
        const StoredPart* stored = part_of(placed.expert[p], part);
        const StoredPart* model = part_of(base_.experts[0][p], part);
        CHIMERA_RETURN_IF_ERROR(check_part(placed, p, part, model, stored));
        if (model == nullptr || stored == nullptr) continue;
        const StackLayout::Place& place = *layout.places[p][part];
        const size_t slice = tensors[first + place.stack].bytes.size() / placed_.size();
        scatter(dense(*stored, ""), place.at, memory[place.stack] + e * slice);
      }
    }
  }
  return {};
}

}  // namespace chimera
