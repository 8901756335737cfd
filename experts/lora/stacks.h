// Changes of all experts of a layer in one pair of tensors, and what they are for each expert.
//
// PEFT's target_parameters change a stack [E, outputs, inputs] that the model keeps as one
// parameter; the pair stands at the module "mlp.experts", a second one at "mlp.experts.base_layer",
// and which of the stacks each is of, its shapes tell:
//
//   lora_A  [E * r, inputs]    row e * r + k    is row k of expert e
//   lora_B  [outputs, r * E]   column k * E + e is column k of expert e
//
// Servers that share the outer side among experts have, at "mlp.experts.gate_up_proj" and the
// like, with a leading 1 for what is shared:
//
//   lora_A  [E or 1, r, inputs]
//   lora_B  [E or 1, outputs, r]
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backbone/families/model_config.h"
#include "base/status.h"
#include "compute/tensor/tensor.h"
#include "experts/lora/config.h"
#include "experts/lora/targets.h"

namespace chimera {

/// One change, checked: scale * b a.
struct StoredChange {
  AdapterTarget target;
  TensorView a;  // [rank, inputs], F32, F16 or BF16
  TensorView b;  // [outputs, rank]
  double scale = 1.0;
  bool copied = false;                       // `a` is memory of its own, and not the file's
  std::optional<TensorView> magnitude = {};  // DoRA: [outputs]
};

struct ExpertStack {
  /// kFlat: the gate and up projections together or the down projection, by its shapes.
  enum class Part : uint8_t { kFlat, kGateUp, kGate, kUp, kDown };
  int64_t layer = 0;
  std::string module;  // "model.layers.0.mlp.experts"
  Part part = Part::kFlat;
};

/// The stack of a part's name (as plain_part_name has it); nothing when it is none.
std::optional<ExpertStack> find_stack(std::string_view name, const ModelConfig& config);

/// "model.layers.0.mlp.experts.gate_up_proj" and so on: what target_parameters may name.
std::vector<std::string> parameter_names(const ModelConfig& config);

struct SplitStack {
  std::string stack;                  // its parameter name
  std::vector<StoredChange> changes;  // of every expert
};
/// failed_precondition with found and expected shapes, or what target_parameters does not name;
/// unimplemented where the shapes fit both ways round and nothing says which. Views into the
/// tensors where numbers lie together, copies of the others.
Result<SplitStack> split_stack(const ExpertStack& stack, const TensorView& a, const TensorView& b,
                               const LoraConfig& adapter, const ModelConfig& config);

}  // namespace chimera
