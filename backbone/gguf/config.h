// What config.json would say of the model in a GGUF file. Internal to GgufModel.
//
// Thread safety: free function.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "backbone/gguf/gguf_file.h"
#include "base/status.h"
#include "compute/tensor/tensor.h"

namespace chimera {

/// Finds a tensor of the model by its GGUF name; null when there is none.
using GgufFind = std::function<const TensorView*(std::string_view name)>;

struct GgufConfig {
  std::string config_json;
  std::string architecture;  // general.architecture
  /// The rows of q and k stand in the order of interleaved rotation: 2i + j of every head holds
  /// what Hugging Face keeps at j * head_dim / 2 + i.
  bool permuted_qk = false;
};

/// From metadata, and from the tensors what metadata does not say. unimplemented, naming it, for an
/// architecture or an option without a family here; data_corrupt for what is missing.
Result<GgufConfig> gguf_config(const GgufMetadata& metadata, const GgufFind& find,
                               const std::string& label);

}  // namespace chimera
