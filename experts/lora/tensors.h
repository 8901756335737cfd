// The tensors of an adapter, each with the part of the backbone that it changes: all of them, or
// the adapter is refused.
//
//   base_model.model.{part}.lora_A.weight   [r, inputs]
//   base_model.model.{part}.lora_B.weight   [outputs, r]
//
// and stacks over the experts of a layer (stacks.h).
//
// Lifetime: views into the file they come from.
//
// Thread safety: values and free functions, from any thread.
#pragma once

#include <string>
#include <vector>

#include "backbone/checkpoint/safetensors.h"
#include "backbone/families/model_config.h"
#include "base/status.h"
#include "experts/lora/config.h"
#include "experts/lora/stacks.h"
#include "experts/lora/targets.h"
#include "experts/module/outline.h"

namespace chimera {

/// How many misfits are told one by one.
inline constexpr size_t kMostMisfits = 16;

/// Every tensor of `file` for a backbone of this configuration. Refused are tensors that no part of
/// it has a place for or that the adapter's configuration does not speak of, a second change of one
/// weight, parts that it speaks of and that have none, and other shapes and dtypes (failed_precondition or unimplemented); with
/// TensorDepth::kContent numbers that are not finite, too (data_corrupt). One line for each, up to
/// kMostMisfits. `label` names the adapter.
Result<std::vector<StoredChange>> sort_adapter_tensors(const SafetensorsFile& file,
                                                       const LoraConfig& adapter,
                                                       const ModelConfig& config, TensorDepth depth,
                                                       const std::string& label);

}  // namespace chimera
