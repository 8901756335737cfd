// The weights of one layer that belong to the backbone: attention, norms, and the feed-forwards
// that every row passes (dense layers, shared experts). Private to the room backbone and this
// folder.
//
// Matrices lie in the checkpoint's memory wherever the stored type allows; vectors are copies.
//
// Thread safety: loading by one thread; loaded weights are read by any number.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "backbone/checkpoint/checkpoint.h"
#include "backbone/families/model_config.h"
#include "backbone/families/needed_tensors.h"
#include "base/status.h"
#include "compute/tensor/tensor.h"

namespace chimera {

/// down(silu(gate x) * up x).
struct FfnWeights {
  Matrix gate, up, down;  // [width, hidden] twice, [hidden, width]
};

/// Multi-head latent attention. kv_b_proj is kept per head in the two forms that attention over
/// cached latents needs: absorbed into the query and into the output (DeepSeek-V2, arXiv
/// 2405.04434, section 2.1.2).
struct LatentWeights {
  Matrix q_a;  // [q_rank, hidden]; without a query rank LayerWeights::q projects the hidden state
  std::vector<float> q_a_bias, q_a_norm;    // [q_rank]
  Matrix kv_a;                              // [kv_rank + rope, hidden]
  std::vector<float> kv_a_bias, kv_a_norm;  // [kv_rank + rope], [kv_rank]
  std::vector<Matrix> k_up;  // per head [kv_rank, nope]: a query into the latent space; transposed
  std::vector<Matrix> v_up;  // per head [v_head_dim, kv_rank]: a mix of latents into its values
};

struct LayerWeights {
  Matrix q, k, v, o;                                  // MLA: q is q_b or q_proj; no k and v
  std::vector<float> q_bias, k_bias, v_bias, o_bias;  // empty when absent
  std::vector<float> q_norm, k_norm;                  // empty when absent or without weights
  std::vector<float> sinks;                           // [heads], empty when absent
  std::optional<LatentWeights> latent;
  std::vector<float> attention_norm, ffn_norm;  // [hidden]
  std::optional<FfnWeights> dense;              // of a layer without a router
  std::optional<FfnWeights> shared;             // beside the router
  std::optional<Matrix> shared_gate;            // [1, hidden]
};

/// In which precision a matrix of the table of needed tensors is kept.
Precision kept_precision(TensorRole role, const PrecisionPlan& plan);
/// Errors as of Checkpoint::matrix and vector: the tensor, found and expected shape.
Status load_layer(const Checkpoint& checkpoint, const ModelConfig& config,
                  const PrecisionPlan& precision, int64_t layer, LayerWeights& out);
/// Puts another tensor, dense and of plain numbers, in the place of one that load_layer() loaded.
/// Errors as of to_matrix() and to_f32() (compute/tensor/convert.h).
Status place_tensor(const ModelConfig& config, const PrecisionPlan& precision,
                    const NeededTensor& needed, const TensorView& tensor, LayerWeights& out);
/// What placing a tensor takes.
struct PlacedBytes {
  uint64_t made = 0;      // bytes that are made of it
  bool in_place = false;  // its own stay in use
};
/// Of a tensor of the backbone that is stored so, in a layer or outside, before it is looked at.
PlacedBytes placed_bytes(const ModelConfig& config, const PrecisionPlan& precision,
                         const NeededTensor& needed, DType stored);
/// Bytes held or mapped.
uint64_t weight_bytes(const LayerWeights& layer);
/// The same without what `other` holds as well.
uint64_t weight_bytes_beside(const LayerWeights& layer, const LayerWeights& other);

}  // namespace chimera
