// The tensors inside a module's payload, sorted by layer and expert and checked (design §6).
//
//   layers.{L}.gate.weight                              [n, hidden]
//   layers.{L}.gate.bias                                [n]
//   layers.{L}.gate.score_correction                    [n]    grouped routing only
//   layers.{L}.gate.group                               [n]    I32, grouped routing only
//   layers.{L}.experts.{e}.{P}.weight                   [out, in]  F32, F16, BF16, F8_E4M3; packed
//   layers.{L}.experts.{e}.{P}.weight_scale_inv         F32, BF16 or F16 per block, with F8_E4M3
//   layers.{L}.experts.{e}.{P}.weight_blocks            [out, in / 32, 16]  U8, MXFP4 instead
//   layers.{L}.experts.{e}.{P}.weight_scales            [out, in / 32]      U8   of .weight
//   layers.{L}.experts.{e}.{P}.bias                     [out]
//
// with P one of gate_proj, up_proj, down_proj. What is quantised stays so in memory; what is
// packed (compute/tensor/packed_tensor.h) is used in place.
//
// Lifetime: LayerTensors point into the SafetensorsFiles they were sorted from.
//
// Thread safety: values and free functions, from any thread.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "backbone/checkpoint/safetensors.h"
#include "backbone/families/model_config.h"
#include "base/status.h"
#include "experts/module/base_tensors.h"
#include "experts/module/manifest.h"
#include "experts/module/stored_expert.h"

namespace chimera {

/// The tensors of one projection. Either weight, with weight_scale_inv when it is F8_E4M3, or
/// weight_blocks with weight_scales.
struct ProjectionTensors {
  const TensorView* weight = nullptr;            // [rows, cols]
  const TensorView* weight_scale_inv = nullptr;  // F32, BF16 or F16, one per block
  const TensorView* weight_blocks = nullptr;     // U8 [rows, cols / 32, 16]
  const TensorView* weight_scales = nullptr;     // U8 [rows, cols / 32]
  const TensorView* bias = nullptr;              // [rows]; may be absent
};
using ExpertTensors = std::array<ProjectionTensors, 3>;  // in the order of kProjections

struct LayerTensors {
  const TensorView* gate_weight = nullptr;  // [n, hidden]; replace: may be absent
  const TensorView* gate_bias = nullptr;    // [n]; may be absent
  // Backbones with grouped routing (deepseek_v3) only; both may be absent.
  const TensorView* gate_score_correction = nullptr;  // [n]
  const TensorView* gate_group = nullptr;             // I32 [n]: the group each expert stands in
  std::map<int64_t, ExpertTensors> experts;           // by expert number (append) or slot (replace)
  BlockShape fp8_block;  // "weight_block_size" in the file's metadata; 128 x 128 when absent
};
using ModuleTensors = std::map<int64_t, LayerTensors>;  // by layer

/// Sorts by name; a name that is none of design §6 is an error (invalid_argument).
Result<ModuleTensors> sort_module_tensors(const std::vector<SafetensorsFile>& files);
/// The same of tensors that stand in no file; they outlive what is returned.
Result<ModuleTensors> sort_module_tensors(std::span<const TensorView> tensors);

/// Layers as the manifest says, experts complete, shapes and dtypes that fit, finite numbers.
Status check_module_tensors(const ModuleTensors& tensors, const Manifest& manifest,
                            const ModelConfig& config);

/// The expert that was checked, as what it was made of.
StoredExpert stored_expert(const ExpertTensors& tensors);
/// Refuses what is not a finite number, quantised or not, naming the tensor.
Status check_finite(const StoredProjection& projection, BlockShape block);

/// Metadata key of FP8 files whose blocks are not 128 x 128: "ROWS,COLS".
inline constexpr const char* kBlockSizeKey = "weight_block_size";

/// The same for what the router of a layer stores.
Status check_finite_gate(const BaseLayer& layer);

/// data_corrupt naming the tensor and the place of its first NaN or infinity. Tensors of another
/// dtype than F32, F16 and BF16 pass.
Status check_finite(const TensorView& tensor);

/// A matrix of exactly [rows, cols], widened to F32, row-major.
Result<std::vector<float>> matrix_to_f32(const TensorView& tensor, int64_t rows, int64_t cols);

}  // namespace chimera
