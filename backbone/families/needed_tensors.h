// Which tensors the backbone of a configuration consists of: one table, which the loader walks and
// every check of a checkpoint walks. (The routed experts have layouts of their own; see
// experts/module/base_tensors.h.)
//
// Thread safety: values and free functions, from any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "backbone/families/model_config.h"

namespace chimera {

/// Where the loader puts a tensor.
enum class TensorRole : uint8_t {
  kEmbedding,
  kHead,
  kFinalNorm,
  // Attention of a layer. MLA: kQ is q_b_proj or q_proj, and there are no kK and kV.
  kQ,
  kK,
  kV,
  kO,
  kQBias,
  kKBias,
  kVBias,
  kOBias,
  kQNorm,
  kKNorm,
  kSinks,
  kQA,
  kQABias,
  kQANorm,
  kKvA,
  kKvABias,
  kKvANorm,
  kKvB,
  kAttentionNorm,
  kFfnNorm,
  // The feed-forward of a layer without a router, and the one beside a router.
  kDenseGate,
  kDenseUp,
  kDenseDown,
  kSharedGate,
  kSharedUp,
  kSharedDown,
  kSharedScore,  // scales the shared expert's output
};

struct NeededTensor {
  TensorRole role;
  std::string name;            // in the file
  std::vector<int64_t> shape;  // one dimension: a vector; two: a matrix
};

/// Outside of the layers: embedding, head (unless it is tied), last norm.
std::vector<NeededTensor> needed_model_tensors(const ModelConfig& config);
/// The name of the head in a file. Beside a tied one it is used only when it is packed: then it is
/// what has been packed of the embedding.
std::string head_name(const ModelConfig& config);
/// The backbone's part of a layer: attention, norms, and the feed-forwards that every row passes.
std::vector<NeededTensor> needed_layer_tensors(const ModelConfig& config, int64_t layer);

}  // namespace chimera
