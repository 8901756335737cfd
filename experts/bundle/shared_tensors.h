// The tensors of a bundle's shared file, each with the tensor of the backbone that it changes: all
// of them, or the bundle is refused.
//
//   {name}           the backbone's tensor of that name, replaced: its shape; F32, F16 or BF16
//   {name}.delta_a   [r, inputs]    of a matrix, together: W + B A
//   {name}.delta_b   [outputs, r]
//
// with the names of the checkpoint (backbone/families/needed_tensors.h): attention, norms,
// embedding, head, dense and shared feed-forwards. Gate rows and experts are no part of the
// backbone's forward pass; they belong in the module's other files.
//
// Lifetime: views into the file they come from, which they keep alive.
//
// Thread safety: values and free functions, from any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "backbone/checkpoint/safetensors.h"
#include "backbone/families/model_config.h"
#include "backbone/families/needed_tensors.h"
#include "base/status.h"
#include "experts/module/outline.h"

namespace chimera {

/// Largest rank of a change: of any that is smaller than what it changes.
inline constexpr int64_t kMaxSharedRank = 4096;

/// Numbers as they are, with no blocks or scales.
inline bool is_plain(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16;
}

/// What a bundle makes of one tensor of the backbone: `full`, or `a` and `b`.
struct SharedChange {
  NeededTensor needed;
  std::optional<TensorView> full;
  std::optional<TensorView> a, b;  // [r, inputs], [outputs, r]
};

/// Every tensor of `file`, in the order of the backbone. Refused are names that are none of the
/// backbone's, both forms of one tensor, halves of a pair, other shapes and dtypes
/// (failed_precondition), and with TensorDepth::kContent numbers that are not finite
/// (data_corrupt). One line for each, up to a screenful. `label` names the bundle.
Result<std::vector<SharedChange>> sort_shared_tensors(const SafetensorsFile& file,
                                                      const ModelConfig& config, TensorDepth depth,
                                                      const std::string& label);

}  // namespace chimera
