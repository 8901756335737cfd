#include "experts/module/base_tensors.h"

#include <array>
#include <cstring>

#include "compute/tensor/memory.h"
#include "compute/tensor/tensor_source.h"

namespace chimera {
namespace {

constexpr std::string_view kWeight = ".weight";

/// Slice `e` of a stack [E, ...].
TensorView slice(const TensorView& stack, int64_t e, int64_t count) {
  TensorView view = stack;
  const size_t bytes = stack.bytes.size() / static_cast<size_t>(count);
  view.shape.erase(view.shape.begin());
  view.bytes = stack.bytes.subspan(static_cast<size_t>(e) * bytes, bytes);
  return view;
}

/// [rows, cols] of gate, up and down.
std::array<int64_t, 2> projection_shape(const ModelConfig& config, size_t projection) {
  if (projection == 2) return {config.hidden_size, config.intermediate_size};
  return {config.intermediate_size, config.hidden_size};
}

Status read_stacks(const Checkpoint& checkpoint, const ModelConfig& config, int64_t layer,
                   BaseLayer& out) {
  const StackLayout& layout = *out.stacks;
  const bool blocks = layout.encoding == Encoding::kMxfp4;
  if (blocks &&
      (config.hidden_size % kMxfp4Block != 0 || config.intermediate_size % kMxfp4Block != 0)) {
    return {Code::kDataCorrupt,
            "MXFP4 experts need hidden_size and intermediate_size to be "
            "multiples of 32"};
  }
  std::vector<TensorView> stacks;
  for (const StackSpec& spec : layout.stacks) {
    std::vector<int64_t> shape = spec.shape;
    shape.insert(shape.begin(), config.num_experts);
    const std::string name = layer_tensor(config, layer, spec.tail);
    // Biases of blocks are plain numbers.
    const bool codes = blocks && spec.shape.size() > 1;
    Result<TensorView> stack =
        codes ? checkpoint.require(name, shape) : checkpoint.require_numbers(name, shape);
    if (!stack.ok()) return stack.status();
    if (codes && stack->dtype != DType::kU8) {
      return {Code::kDataCorrupt, checkpoint.dir() + ": tensor " + name + " is stored as " +
                                      std::string(dtype_name(stack->dtype)) + ", expected U8"};
    }
    stacks.push_back(std::move(*stack));
  }
  for (int64_t e = 0; e < config.num_experts; ++e) {
    StoredExpert expert;
    for (size_t p = 0; p < expert.size(); ++p) {
      StoredProjection& projection = expert[p];
      projection.encoding = layout.encoding;
      projection.rows = projection_shape(config, p)[0];
      projection.cols = projection_shape(config, p)[1];
      for (const Part part : {kWeightPart, kScalePart, kBiasPart}) {
        const auto& place = layout.places[p][part];
        if (!place) continue;
        StoredPart stored{slice(stacks[place->stack], e, config.num_experts), place->at,
                          place->shape};
        if (part == kWeightPart) {
          projection.weight = std::move(stored);
        } else if (part == kScalePart) {
          projection.scale = std::move(stored);
        } else {
          projection.bias = std::move(stored);
        }
      }
    }
    out.experts.push_back(std::move(expert));
  }
  return {};
}

Result<StoredProjection> read_projection(const Checkpoint& checkpoint, const ModelConfig& config,
                                         int64_t layer, int64_t e, size_t p) {
  StoredProjection out;
  const std::array<int64_t, 2> shape = projection_shape(config, p);
  out.rows = shape[0];
  out.cols = shape[1];
  const auto name = [&](Encoding encoding, Part part) {
    return single_tensor_name(config, layer, e, p, encoding, part);
  };
  Result<TensorView> weight = checkpoint.require(name(Encoding::kPlain, kWeightPart), shape);
  if (!weight.ok()) return weight.status();
  if (weight->dtype == DType::kF8E4M3) {
    out.encoding = Encoding::kFp8;
    const BlockShape block = checkpoint.block_shape();
    Result<TensorView> scale =
        checkpoint.require(name(Encoding::kFp8, kScalePart),
                           std::array{block.scale_rows(shape[0]), block.scale_cols(shape[1])});
    if (!scale.ok()) return scale.status();
    CHIMERA_RETURN_IF_ERROR(
        fp8_matrix(*weight, *scale, block).status().with_context(checkpoint.dir()));
    out.scale = whole_part(*scale);
  } else if (!is_packed_type(weight->dtype)) {
    CHIMERA_RETURN_IF_ERROR(check_number_dtype(*weight).with_context(checkpoint.dir()));
  }
  out.weight = whole_part(*weight);
  if ((config.dense_base && config.mlp_bias) || config.expert_kind == ExpertKind::kClampedSwiGlu) {
    Result<TensorView> bias =
        checkpoint.require_numbers(name(Encoding::kPlain, kBiasPart), std::array{shape[0]});
    if (!bias.ok()) return bias.status();
    out.bias = whole_part(*bias);
  }
  return out;
}

Status read_single(const Checkpoint& checkpoint, const ModelConfig& config, int64_t layer,
                   BaseLayer& out) {
  for (int64_t e = 0; e < config.num_experts; ++e) {
    StoredExpert expert;
    for (size_t p = 0; p < expert.size(); ++p) {
      Result<StoredProjection> projection = read_projection(checkpoint, config, layer, e, p);
      if (!projection.ok()) return projection.status();
      expert[p] = std::move(*projection);
    }
    out.experts.push_back(std::move(expert));
  }
  return {};
}

Status read_optional(const Checkpoint& checkpoint, const std::string& name, int64_t n, bool wanted,
                     std::optional<TensorView>& out) {
  if (!wanted) return {};
  Result<TensorView> found = checkpoint.require_numbers(name, std::array{n});
  if (!found.ok()) return found.status();
  out = std::move(*found);
  return {};
}

/// In checkpoints that `split` wrote.
Status read_expert_group(const Checkpoint& checkpoint, const std::string& name, int64_t n,
                         std::optional<TensorView>& out) {
  if (checkpoint.find(name) == nullptr) return {};
  Result<TensorView> found = checkpoint.require(name, std::array{n});
  if (!found.ok()) return found.status();
  out = std::move(*found);
  return {};
}

Status read_gate(const Checkpoint& checkpoint, const ModelConfig& config, int64_t layer,
                 BaseLayer& out) {
  const TensorNames& names = tensor_names(config);
  if (config.dense_base) {
    std::byte* zeros = nullptr;
    out.gate = make_tensor("", DType::kF32, {1, config.hidden_size}, &zeros);
    return {};
  }
  // The fused layout of transformers 5 renames mixtral's gate as well.
  const std::string other_gate = layer_tensor(config, layer, names.fused_gate);
  std::string gate_name = layer_tensor(config, layer, names.gate);
  if (checkpoint.find(gate_name) == nullptr && checkpoint.find(other_gate) != nullptr) {
    gate_name = other_gate;
  }
  const int64_t experts = config.num_experts;
  Result<TensorView> gate =
      checkpoint.require_numbers(gate_name, std::array{experts, config.hidden_size});
  if (gate.ok()) gate = loaded(*gate);  // small, and rows are taken from it
  if (!gate.ok()) return gate.status();
  out.gate = std::move(*gate);
  CHIMERA_RETURN_IF_ERROR(read_optional(checkpoint, layer_tensor(config, layer, names.gate_bias),
                                        experts, config.gate_bias, out.gate_bias));
  CHIMERA_RETURN_IF_ERROR(read_optional(checkpoint,
                                        layer_tensor(config, layer, names.score_correction),
                                        experts, config.score_correction, out.score_correction));
  return read_expert_group(checkpoint, expert_group_name(config, layer), experts, out.expert_group);
}

}  // namespace

Result<BaseLayer> read_base_layer(const Checkpoint& checkpoint, const ModelConfig& config,
                                  int64_t layer) {
  BaseLayer out;
  CHIMERA_RETURN_IF_ERROR(read_gate(checkpoint, config, layer, out));
  out.stacks = stack_layout(checkpoint, config, layer);
  CHIMERA_RETURN_IF_ERROR(out.stacks ? read_stacks(checkpoint, config, layer, out)
                                     : read_single(checkpoint, config, layer, out));
  return out;
}

bool is_moe_layer(const ModelConfig& config, int64_t layer) {
  const auto at = static_cast<size_t>(layer);
  return at >= config.moe_layers.size() || config.moe_layers[at] != 0;
}

std::vector<int64_t> moe_layers(const ModelConfig& config) {
  std::vector<int64_t> layers;
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    if (is_moe_layer(config, layer)) layers.push_back(layer);
  }
  return layers;
}

std::string expert_group_name(const ModelConfig& config, int64_t layer) {
  std::string gate = layer_tensor(config, layer, tensor_names(config).gate);
  if (gate.ends_with(kWeight)) gate.resize(gate.size() - kWeight.size());
  return gate + ".expert_group";
}

Result<std::vector<int32_t>> base_groups(const BaseLayer& layer, const ModelConfig& config) {
  std::vector<int32_t> groups;
  if (config.n_group <= 1) return groups;
  const int64_t experts = config.num_experts;
  if (!layer.expert_group) {
    if (experts % config.n_group != 0) {
      return Status(
          Code::kDataCorrupt,
          "found " + std::to_string(experts) + " experts in " + std::to_string(config.n_group) +
              " groups (expected a multiple, or the tensor expert_group beside the gate)");
    }
    for (int64_t e = 0; e < experts; ++e) {
      groups.push_back(static_cast<int32_t>(e / (experts / config.n_group)));
    }
    return groups;
  }
  const TensorView& stored = *layer.expert_group;
  if (stored.dtype != DType::kI32) {
    return Status(Code::kDataCorrupt, "tensor " + stored.name + " is stored as " +
                                          std::string(dtype_name(stored.dtype)) + ", expected I32");
  }
  groups.resize(static_cast<size_t>(experts));
  std::memcpy(groups.data(), stored.bytes.data(), stored.bytes.size());
  for (const int32_t group : groups) {
    if (group >= 0 && group < config.n_group) continue;
    return Status(Code::kDataCorrupt, "tensor " + stored.name + ": found group " +
                                          std::to_string(group) + " (expected 0 to " +
                                          std::to_string(config.n_group - 1) + ")");
  }
  return groups;
}

bool is_cut_tensor(const ModelConfig& config, const std::string& name) {
  if (config.dense_base) return false;
  for (const int64_t layer : moe_layers(config)) {
    if (!name.starts_with(layer_tensor(config, layer, ""))) continue;
    return is_expert_tensor(config, name) || name == expert_group_name(config, layer);
  }
  return false;  // of layers that the model does not run, such as those for further tokens
}

std::string single_tensor_name(const ModelConfig& config, int64_t layer, int64_t expert,
                               size_t projection, Encoding encoding, Part part) {
  const TensorNames& names = tensor_names(config);
  const std::array<const std::string*, 3> tails{&names.expert_gate, &names.expert_up,
                                                &names.expert_down};
  std::string name = expert_tensor(config, layer, expert, *tails[projection]);
  name.resize(name.size() - kWeight.size());
  return name + std::string(part_tail(encoding, part));
}

}  // namespace chimera
