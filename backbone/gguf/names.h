// The tensors of a GGUF file under the names and in the shapes that Hugging Face gives them.
// Internal to GgufModel.
//
// Thread safety: free function.
#pragma once

#include <string>
#include <vector>

#include "backbone/families/model_config.h"
#include "base/status.h"
#include "compute/tensor/tensor.h"

namespace chimera {

/// Renames `tensors` for the family of `config`. Views stay in place, stacks of experts become a
/// view for each expert, and what the file keeps in another order is put in order in memory of its
/// own: the rows of q and k when `permuted_qk`, DeepSeek's k_b and v_b as one kv_b_proj (in F32
/// when they are in blocks), routers in blocks (in F32). Tensors that no family knows keep their
/// names. data_corrupt: a shape that cannot be; resource_exhausted: no memory.
Result<std::vector<TensorView>> huggingface_tensors(const std::vector<TensorView>& tensors,
                                                    const ModelConfig& config, bool permuted_qk,
                                                    const std::string& label);

}  // namespace chimera
