// The block size of FP8 weights as a checkpoint's config.json states it.
//
// Thread safety: free function, from any thread.
#pragma once

#include <string_view>

#include "base/status.h"
#include "compute/tensor/block_quant.h"

namespace chimera {

/// quantization_config.weight_block_size of a config.json (of either level of a composite one);
/// 128 x 128 when absent. invalid_argument unless a pair of numbers from 1 to 2^20.
Result<BlockShape> weight_block_size(std::string_view config_json, std::string_view label);

}  // namespace chimera
