// Which part of a backbone a tensor of an adapter changes: one table made of the tables that the
// backbone's own weights are loaded by, so what a family has, an adapter may change.
//
// Thread safety: values and pure functions.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "backbone/families/model_config.h"
#include "backbone/families/needed_tensors.h"

namespace chimera {

/// A product of the model, y = x W^T with W [outputs, inputs].
struct AdapterTarget {
  int64_t layer = 0;
  TensorRole role = TensorRole::kQ;  // of the backbone's own; kKvB is cut up per head
  int64_t expert = -1;               // of the checkpoint's experts; -1: the backbone's own
  size_t projection = 0;             // of an expert, in the order of kProjections
  int64_t outputs = 0, inputs = 0;
};

/// By the name of its weight without ".weight" and without what composite checkpoints put in front:
/// "model.layers.0.self_attn.q_proj".
using AdapterTargets = std::map<std::string, AdapterTarget, std::less<>>;

AdapterTargets adapter_targets(const ModelConfig& config);

/// The name of a part in the form of AdapterTargets, from one that a composite model may have
/// spelled "language_model.model.…" or "model.language_model.…".
std::string plain_part_name(std::string_view name);

}  // namespace chimera
