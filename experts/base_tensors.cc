#include "experts/base_tensors.h"

namespace chimera {
namespace {

/// Rows [row0, row0 + rows) of matrix `i` of a stack [E, stack_rows, cols], in place.
TensorView slice(const TensorView& stack, int64_t i, int64_t row0, int64_t rows) {
  TensorView view = stack;
  const int64_t cols = stack.shape[2];
  const auto element = static_cast<size_t>(dtype_bits(stack.dtype) / 8);
  const auto begin = static_cast<size_t>((i * stack.shape[1] + row0) * cols) * element;
  view.shape = {rows, cols};
  view.bytes = stack.bytes.subspan(begin, static_cast<size_t>(rows * cols) * element);
  return view;
}

Status read_fused(const Checkpoint& checkpoint, const ModelConfig& config, int64_t layer,
                  BaseLayer& out) {
  const TensorNames& names = tensor_names(config);
  const int64_t experts = config.num_experts;
  const int64_t hidden = config.hidden_size;
  const int64_t width = config.intermediate_size;
  const Result<TensorView> gate_up = checkpoint.require(
      layer_tensor(config, layer, names.fused_gate_up), std::array{experts, 2 * width, hidden});
  if (!gate_up.ok()) return gate_up.status();
  const Result<TensorView> down = checkpoint.require(layer_tensor(config, layer, names.fused_down),
                                                     std::array{experts, hidden, width});
  if (!down.ok()) return down.status();
  for (int64_t e = 0; e < experts; ++e) {
    out.experts.push_back({slice(*gate_up, e, 0, width), slice(*gate_up, e, width, width),
                           slice(*down, e, 0, hidden)});
  }
  return {};
}

Status read_single(const Checkpoint& checkpoint, const ModelConfig& config, int64_t layer,
                   BaseLayer& out) {
  const TensorNames& names = tensor_names(config);
  const std::array<std::string, 3> tails{names.expert_gate, names.expert_up, names.expert_down};
  for (int64_t e = 0; e < config.num_experts; ++e) {
    ExpertViews expert;
    for (size_t i = 0; i < expert.size(); ++i) {
      std::array shape{config.intermediate_size, config.hidden_size};
      if (i == 2) std::swap(shape[0], shape[1]);
      Result<TensorView> view =
          checkpoint.require(expert_tensor(config, layer, e, tails[i]), shape);
      if (!view.ok()) return view.status();
      expert[i] = std::move(*view);
    }
    out.experts.push_back(std::move(expert));
  }
  return {};
}

}  // namespace

Result<BaseLayer> read_base_layer(const Checkpoint& checkpoint, const ModelConfig& config,
                                  int64_t layer) {
  const TensorNames& names = tensor_names(config);
  BaseLayer out;
  // The fused layout of transformers 5 renames mixtral's gate as well.
  const std::string other_gate = layer_tensor(config, layer, names.fused_gate);
  std::string gate_name = layer_tensor(config, layer, names.gate);
  if (checkpoint.find(gate_name) == nullptr && checkpoint.find(other_gate) != nullptr) {
    gate_name = other_gate;
  }
  Result<TensorView> gate =
      checkpoint.require(gate_name, std::array{config.num_experts, config.hidden_size});
  if (!gate.ok()) return gate.status();
  out.gate = std::move(*gate);
  out.fused = !names.fused_gate_up.empty() &&
              checkpoint.find(layer_tensor(config, layer, names.fused_gate_up)) != nullptr;
  CHIMERA_RETURN_IF_ERROR(out.fused ? read_fused(checkpoint, config, layer, out)
                                    : read_single(checkpoint, config, layer, out));
  return out;
}

}  // namespace chimera
