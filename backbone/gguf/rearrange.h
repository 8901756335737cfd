// Tensors that converters to GGUF store in another order, brought back into that of Hugging Face.
// Internal to GgufModel.
//
// Thread safety: free functions. They throw std::bad_alloc.
#pragma once

#include <cstdint>

#include "backbone/families/model_config.h"
#include "base/status.h"
#include "compute/tensor/tensor.h"

namespace chimera {

/// Rows (or elements of a vector) of `heads` heads: 2i + j of a head becomes j * half + i. Rows
/// move whole, blocks and all. data_corrupt: rows that are no even number per head.
Result<TensorView> unpermute_heads(const TensorView& t, int64_t heads);

/// kv_b_proj [heads * (nope + v), rank] from k_b [heads, rank, nope] and v_b [heads, v, rank]. As
/// stored when both are plain numbers of one dtype, else F32. data_corrupt: other shapes.
Result<TensorView> join_latent(const TensorView& keys, const TensorView& values,
                               const ModelConfig& config);

/// A tensor as F32. REQUIRES: F32, F16, BF16 or a block type.
Result<TensorView> widened(const TensorView& t);

}  // namespace chimera
