// The tensors inside a module's payload, sorted by layer and expert and checked (design §6).
//
// Lifetime: LayerTensors point into the SafetensorsFiles they were sorted from.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <vector>

#include "backbone/model_config.h"
#include "backbone/safetensors.h"
#include "backbone/status.h"
#include "experts/manifest.h"

namespace chimera {

struct LayerTensors {
  const TensorView* gate_weight = nullptr;  // [n, hidden]; replace: may be absent
  const TensorView* gate_bias = nullptr;    // [n]; may be absent
  /// gate_proj, up_proj [width, hidden], down_proj [hidden, width] by expert number (append) or
  /// slot (replace).
  std::map<int64_t, std::array<const TensorView*, 3>> experts;
};
using ModuleTensors = std::map<int64_t, LayerTensors>;  // by layer

/// Sorts by name; a name that is none of design §6 is an error (invalid_argument).
Result<ModuleTensors> sort_module_tensors(const std::vector<SafetensorsFile>& files);

/// Layers as the manifest says, experts complete, shapes and dtypes that fit, finite numbers.
Status check_module_tensors(const ModuleTensors& tensors, const Manifest& manifest,
                            const ModelConfig& config);

/// data_corrupt naming the tensor and the place of its first NaN or infinity. Tensors of another
/// dtype than F32, F16 and BF16 pass.
Status check_finite(const TensorView& tensor);

/// A matrix of exactly [rows, cols], widened to F32, row-major.
Result<std::vector<float>> matrix_to_f32(const TensorView& tensor, int64_t rows, int64_t cols);

}  // namespace chimera
