// The routed experts and gate rows of a Hugging Face checkpoint, whichever layout it stores them in
// (model-families: per expert, fused as transformers 5 writes them, or stacked as llama4 and
// gpt_oss do).
//
// Lifetime: views into the checkpoint's memory, which they keep alive.
//
// Thread safety: values and free functions, from any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "backbone/checkpoint/checkpoint.h"
#include "backbone/families/model_config.h"
#include "base/status.h"
#include "compute/tensor/tensor.h"
#include "experts/module/stored_expert.h"

namespace chimera {

/// One layer of it. Tensors keep the names they have in the file.
struct BaseLayer {
  TensorView gate;  // [E, hidden]; dense families: one row of zeros without a name
  std::optional<TensorView> gate_bias;         // [E]
  std::optional<TensorView> score_correction;  // [E]
  /// [E] I32, only in checkpoints that `split` wrote: the group of every expert that is left.
  std::optional<TensorView> expert_group;
  std::vector<StoredExpert> experts;  // [E]
  std::optional<StackLayout> stacks;  // set: the experts are slices of these
};

/// Errors name the tensor with found and expected shape, as Checkpoint::require.
Result<BaseLayer> read_base_layer(const Checkpoint& checkpoint, const ModelConfig& config,
                                  int64_t layer);

/// Whether `layer` has a router.
bool is_moe_layer(const ModelConfig& config, int64_t layer);
/// Those layers, ascending.
std::vector<int64_t> moe_layers(const ModelConfig& config);

/// Name of BaseLayer::expert_group.
std::string expert_group_name(const ModelConfig& config, int64_t layer);
/// Group of every base expert of a grouped gate: as `expert_group` says, else contiguous groups of
/// the same size. Empty when the family has none.
Result<std::vector<int32_t>> base_groups(const BaseLayer& layer, const ModelConfig& config);
/// Whether `split` cuts this tensor: an expert or what the router stores per expert, of a layer
/// that the model runs.
bool is_cut_tensor(const ModelConfig& config, const std::string& name);

/// The tensor name of a part of a per-expert layout, as the family spells it.
std::string single_tensor_name(const ModelConfig& config, int64_t layer, int64_t expert,
                               size_t projection, Encoding encoding, Part part);

}  // namespace chimera
