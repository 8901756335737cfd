// Quantised Hugging Face checkpoints as checkpoints of formats that the engine knows: one tensor
// "NAME.weight" for what a scheme stores in several, and a config.json that speaks of them.
//
//   scheme (quant_method)                     becomes
//   fp8; compressed-tensors FP8; modelopt     F8_E4M3 with weight_scale_inv, in place
//   compressed-tensors int, gptq, awq, mlx    INT4, INT8, INT4_AFFINE, INT8_AFFINE or F32
//   compressed-tensors and modelopt NVFP4     NVFP4
//
// mxfp4 (gpt_oss) is read by its family. Other schemes are refused by name.
//
// Thread safety: free functions.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backbone/files/tensor_file.h"
#include "base/status.h"

namespace chimera {

struct QuantizedCheckpoint {
  std::string config_json;
  std::vector<std::shared_ptr<const TensorFile>> files;
  /// "GPTQ, 4 bits, groups of 128".
  std::string description;
};

/// Nothing when config.json speaks of no quantisation, or of one that the families read themselves.
/// unimplemented, invalid_argument: a scheme or an option of it that is not supported, by name;
/// data_corrupt: tensors that do not fit. What else is wrong with config.json is judged elsewhere.
Result<std::optional<QuantizedCheckpoint>> read_quantized(
    std::string_view config_json, std::string_view label, const std::string& dir,
    const std::vector<std::shared_ptr<const TensorFile>>& files);

}  // namespace chimera
