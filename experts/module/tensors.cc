#include "experts/module/tensors.h"

#include <fmt/format.h>

#include <charconv>
#include <cstring>
#include <optional>
#include <span>
#include <string_view>

#include "backbone/checkpoint/checkpoint.h"
#include "base/threads/background.h"
#include "base/threads/each_parallel.h"
#include "compute/tensor/block_types.h"
#include "compute/tensor/convert.h"
#include "compute/tensor/pack.h"
#include "compute/tensor/packed_tensor.h"
#include "compute/tensor/tensor_source.h"
#include "experts/module/base_tensors.h"
#include "experts/module/outline.h"

namespace chimera {
namespace {

constexpr const char* kShapeHint =
    "Matrices are stored as [outputs, inputs] for the hidden size of the backbone; `chimera module "
    "inspect` shows both";

constexpr std::string_view kNames =
    "layers.{L}.gate.weight, layers.{L}.gate.bias or "
    "layers.{L}.experts.{e}.{gate_proj,up_proj,down_proj}.weight, or one of the names for biases, "
    "quantised weights and grouped gates";

/// Takes "123." off the front of `text`: digits without sign or leading zero.
std::optional<int64_t> take_index(std::string_view& text) {
  const size_t end = text.find('.');
  if (end == std::string_view::npos || end == 0 || end > 6) return std::nullopt;
  const std::string_view digits = text.substr(0, end);
  if (digits.find_first_not_of("0123456789") != std::string_view::npos) return std::nullopt;
  if (digits.size() > 1 && digits.front() == '0') return std::nullopt;
  int64_t value = 0;
  std::from_chars(digits.data(), digits.data() + digits.size(), value);
  text.remove_prefix(end + 1);
  return value;
}

bool take(std::string_view& text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

/// What follows the projection's name.
const TensorView** place_of(ProjectionTensors& projection, std::string_view tail) {
  if (tail == ".weight") return &projection.weight;
  if (tail == ".weight_scale_inv") return &projection.weight_scale_inv;
  if (tail == ".weight_blocks") return &projection.weight_blocks;
  if (tail == ".weight_scales") return &projection.weight_scales;
  if (tail == ".bias") return &projection.bias;
  return nullptr;
}

/// Where a tensor of this name belongs; null when the name is none of those in the header.
const TensorView** place_of(ModuleTensors& tensors, std::string_view name, BlockShape block) {
  if (!take(name, "layers.")) return nullptr;
  const auto layer = take_index(name);
  if (!layer) return nullptr;
  LayerTensors& part = tensors[*layer];
  if (name == "gate.weight") return &part.gate_weight;
  if (name == "gate.bias") return &part.gate_bias;
  if (name == "gate.score_correction") return &part.gate_score_correction;
  if (name == "gate.group") return &part.gate_group;
  if (!take(name, "experts.")) return nullptr;
  const auto expert = take_index(name);
  if (!expert) return nullptr;
  part.fp8_block = block;
  for (size_t i = 0; i < kProjections.size(); ++i) {
    if (!take(name, kProjections[i])) continue;
    return place_of(part.experts[*expert][i], name);
  }
  return nullptr;
}

/// "ROWS,COLS" of the metadata; 128 x 128 when there is none.
Result<BlockShape> block_of(const SafetensorsFile& file) {
  BlockShape block;
  const auto found = file.metadata().find(kBlockSizeKey);
  if (found == file.metadata().end()) return block;
  const std::string& text = found->second;
  const char* end = text.data() + text.size();
  const auto rows = std::from_chars(text.data(), end, block.rows);
  const bool comma = rows.ec == std::errc() && rows.ptr != end && *rows.ptr == ',';
  const auto cols = comma ? std::from_chars(rows.ptr + 1, end, block.cols) : rows;
  constexpr int64_t kMost = int64_t{1} << 20;
  if (!comma || cols.ec != std::errc() || cols.ptr != end || block.rows < 1 || block.cols < 1 ||
      block.rows > kMost || block.cols > kMost) {
    return Status(Code::kInvalidArgument,
                  fmt::format("metadata {}: found \"{}\" (expected ROWS,COLS, such as 128,128)",
                              kBlockSizeKey, text));
  }
  return block;
}

Status missing(int64_t layer, const std::string& tail) {
  return {Code::kInvalidArgument,
          fmt::format("found no tensor layers.{}.{} (expected it)", layer, tail),
          "Every expert needs gate_proj, up_proj and down_proj, every appended one a gate row."};
}

Status check_shape(const TensorView& t, std::span<const int64_t> shape) {
  if (!std::equal(t.shape.begin(), t.shape.end(), shape.begin(), shape.end())) {
    return {Code::kInvalidArgument,
            fmt::format("tensor {}: found shape {} (expected {})", t.name, shape_string(t.shape),
                        shape_string(shape)),
            kShapeHint};
  }
  return {};
}

Status check_tensor(const TensorView& t, std::span<const int64_t> shape, TensorDepth depth) {
  CHIMERA_RETURN_IF_ERROR(check_shape(t, shape));
  if (!check_number_dtype(t).ok()) {
    return {Code::kUnimplemented,
            fmt::format("tensor {}: found dtype {} (expected F32, F16 or BF16)", t.name,
                        dtype_name(t.dtype))};
  }
  return depth == TensorDepth::kHeader ? Status() : check_finite(t);
}

/// "0 to 23", or "1, 3, 5" where some layers have no router.
std::string layer_list(const ModelConfig& config) {
  const std::vector<int64_t> layers = moe_layers(config);
  if (layers.size() == static_cast<size_t>(config.num_layers)) {
    return fmt::format("0 to {}", config.num_layers - 1);
  }
  return fmt::format("{}", fmt::join(layers, ", "));
}

Status check_layers(const ModuleTensors& tensors, const Manifest& manifest,
                    const ModelConfig& config) {
  std::map<int64_t, bool> wanted;
  if (manifest.layers) {
    for (const int64_t layer : *manifest.layers) wanted[layer] = true;
  } else {
    for (const int64_t layer : moe_layers(config)) wanted[layer] = true;
  }
  for (const auto& [layer, unused] : wanted) {
    if (layer < config.num_layers && !is_moe_layer(config, layer)) {
      return {Code::kFailedPrecondition,
              fmt::format("found layer {} (expected layers {}: the others have no router)", layer,
                          layer_list(config))};
    }
  }
  for (const auto& [layer, part] : tensors) {
    if (wanted.count(layer) != 0) continue;
    return {Code::kInvalidArgument,
            fmt::format("found tensors of layer {} (expected layers {})", layer,
                        manifest.layers ? fmt::format("{}", fmt::join(*manifest.layers, ", "))
                                        : layer_list(config))};
  }
  for (const auto& [layer, unused] : wanted) {
    if (tensors.count(layer) != 0) continue;
    return {Code::kInvalidArgument,
            fmt::format("found no tensors of layer {} (expected experts there)", layer),
            "List the layers that the module has under layers in module.yaml."};
  }
  return {};
}

Status wrong_dtype(const TensorView& t, std::string_view expected) {
  return {Code::kUnimplemented, fmt::format("tensor {}: found dtype {} (expected {})", t.name,
                                            dtype_name(t.dtype), expected)};
}

/// MXFP4 tensors of a projection [rows, cols].
Status check_blocks(const ProjectionTensors& t, int64_t rows, int64_t cols) {
  if (cols % kMxfp4Block != 0) {
    return {Code::kInvalidArgument,
            fmt::format("tensor {}: found MXFP4 for {} inputs (expected a multiple of 32)",
                        t.weight_blocks->name, cols)};
  }
  const int64_t blocks = cols / kMxfp4Block;
  CHIMERA_RETURN_IF_ERROR(
      check_shape(*t.weight_blocks, std::array{rows, blocks, kMxfp4BlockBytes}));
  CHIMERA_RETURN_IF_ERROR(check_shape(*t.weight_scales, std::array{rows, blocks}));
  for (const TensorView* tensor : {t.weight_blocks, t.weight_scales}) {
    if (tensor->dtype != DType::kU8) return wrong_dtype(*tensor, "U8");
  }
  return {};
}

/// `name` is "layers.0.experts.1.gate_proj", for messages.
Status check_projection(const ProjectionTensors& t, const std::string& name, int64_t rows,
                        int64_t cols, BlockShape block, TensorDepth depth) {
  const auto surplus = [&](const TensorView* tensor, const char* with) {
    return Status(
        Code::kInvalidArgument,
        fmt::format("found the tensor {} (expected it only with {})", tensor->name, with));
  };
  if (t.weight_blocks != nullptr) {
    if (t.weight != nullptr) return surplus(t.weight, "no weight_blocks");
    if (t.weight_scale_inv != nullptr) return surplus(t.weight_scale_inv, "an F8_E4M3 weight");
    if (t.weight_scales == nullptr) {
      return {Code::kInvalidArgument,
              fmt::format("found no tensor {}.weight_scales (expected it)", name)};
    }
    CHIMERA_RETURN_IF_ERROR(check_blocks(t, rows, cols));
  } else {
    const bool fp8 = t.weight->dtype == DType::kF8E4M3;
    if (t.weight_scales != nullptr) return surplus(t.weight_scales, "weight_blocks");
    if (!fp8 && t.weight_scale_inv != nullptr) {
      return surplus(t.weight_scale_inv, "an F8_E4M3 weight");
    }
    if (is_packed_type(t.weight->dtype)) {
      CHIMERA_RETURN_IF_ERROR(check_shape(*t.weight, std::array{rows, cols}));
      if (depth == TensorDepth::kContent) CHIMERA_RETURN_IF_ERROR(check_finite(*t.weight));
    } else if (!fp8) {
      CHIMERA_RETURN_IF_ERROR(check_tensor(*t.weight, std::array{rows, cols}, depth));
    } else {
      CHIMERA_RETURN_IF_ERROR(check_shape(*t.weight, std::array{rows, cols}));
      if (t.weight_scale_inv == nullptr) {
        return {Code::kInvalidArgument,
                fmt::format("found no tensor {}.weight_scale_inv (expected it: the weight is "
                            "F8_E4M3)",
                            name)};
      }
      CHIMERA_RETURN_IF_ERROR(check_shape(
          *t.weight_scale_inv, std::array{block.scale_rows(rows), block.scale_cols(cols)}));
      if (!is_scale_dtype(t.weight_scale_inv->dtype))
        return wrong_dtype(*t.weight_scale_inv, "F32, BF16 or F16");
    }
  }
  if (t.bias != nullptr) CHIMERA_RETURN_IF_ERROR(check_tensor(*t.bias, std::array{rows}, depth));
  return {};
}

Status check_expert(int64_t layer, int64_t e, const LayerTensors& part, int64_t hidden,
                    TensorDepth depth) {
  const ExpertTensors& expert = part.experts.at(e);
  const auto name = [&](size_t i) {
    return fmt::format("layers.{}.experts.{}.{}", layer, e, kProjections[i]);
  };
  for (size_t i = 0; i < expert.size(); ++i) {
    if (expert[i].weight == nullptr && expert[i].weight_blocks == nullptr) {
      return missing(layer, fmt::format("experts.{}.{}.weight", e, kProjections[i]));
    }
  }
  const TensorView& gate =
      expert[0].weight_blocks != nullptr ? *expert[0].weight_blocks : *expert[0].weight;
  if (gate.shape.size() < 2 || gate.shape[0] < 1) {
    return {Code::kInvalidArgument,
            fmt::format("tensor {}: found shape {} (expected [width, {}])", gate.name,
                        shape_string(gate.shape), hidden),
            kShapeHint};
  }
  const int64_t width = gate.shape[0];
  for (size_t i = 0; i < expert.size(); ++i) {
    const int64_t rows = i == 2 ? hidden : width;
    const int64_t cols = i == 2 ? width : hidden;
    CHIMERA_RETURN_IF_ERROR(
        check_projection(expert[i], name(i), rows, cols, part.fp8_block, depth));
  }
  if (depth == TensorDepth::kHeader) return {};
  for (const StoredProjection& projection : stored_expert(expert)) {
    if (projection.encoding == Encoding::kPlain) continue;  // checked with its shape
    CHIMERA_RETURN_IF_ERROR(check_finite(projection, part.fp8_block));
  }
  return {};
}

/// What only a grouped gate has a use for.
Status check_grouped(const LayerTensors& part, int64_t n, const ModelConfig& config,
                     TensorDepth depth) {
  const bool corrects = config.gate_kind == GateKind::kGroupedSigmoid;
  const auto unused = [&](const TensorView& tensor, std::string_view what) -> Status {
    return {Code::kFailedPrecondition,
            fmt::format("found the tensor {} (expected none: the gate of {} has no {})",
                        tensor.name, config.model_type, what)};
  };
  if (part.gate_score_correction != nullptr && !corrects)
    return unused(*part.gate_score_correction, "score corrections");
  if (part.gate_group != nullptr && !corrects && config.n_group <= 1)
    return unused(*part.gate_group, "groups");
  if (part.gate_score_correction != nullptr) {
    CHIMERA_RETURN_IF_ERROR(check_tensor(*part.gate_score_correction, std::array{n}, depth));
  }
  if (part.gate_group == nullptr) return {};
  CHIMERA_RETURN_IF_ERROR(check_shape(*part.gate_group, std::array{n}));
  if (part.gate_group->dtype != DType::kI32) return wrong_dtype(*part.gate_group, "I32");
  if (depth == TensorDepth::kHeader) return {};
  for (int64_t e = 0; e < n; ++e) {
    int32_t group = 0;
    std::memcpy(&group, part.gate_group->bytes.data() + e * 4, sizeof(group));
    if (group >= -1 && group < config.n_group) continue;
    return {Code::kFailedPrecondition,
            fmt::format("tensor {}: found group {} (expected -1 to {})", part.gate_group->name,
                        group, config.n_group - 1)};
  }
  return {};
}

Status check_numbers(int64_t layer, const LayerTensors& part, const Manifest& manifest,
                     const ModelConfig& config) {
  if (part.experts.empty()) return missing(layer, "experts.0.gate_proj.weight");
  const auto n = static_cast<int64_t>(part.experts.size());
  const int64_t last = part.experts.rbegin()->first;
  if (manifest.attach == Attach::kAppend && last != n - 1) {
    return {Code::kInvalidArgument,
            fmt::format("layer {}: found expert {} among {} experts (expected 0 to {})", layer,
                        last, n, n - 1),
            "attach: append numbers the experts of a layer from 0 without a hole."};
  }
  if (manifest.attach == Attach::kReplace && last >= config.num_experts) {
    return {Code::kFailedPrecondition,
            fmt::format("layer {}: found slot {} (expected 0 to {})", layer, last,
                        config.num_experts - 1),
            "attach: replace numbers experts by the backbone's slots."};
  }
  if (manifest.attach == Attach::kAppend && part.gate_weight == nullptr) {
    return missing(layer, "gate.weight");
  }
  return {};
}

Status check_layer(int64_t layer, const LayerTensors& part, const Manifest& manifest,
                   const ModelConfig& config, TensorDepth depth) {
  CHIMERA_RETURN_IF_ERROR(check_numbers(layer, part, manifest, config));
  for (const auto& [e, expert] : part.experts)
    CHIMERA_RETURN_IF_ERROR(check_expert(layer, e, part, config.hidden_size, depth));
  const auto n = static_cast<int64_t>(part.experts.size());
  if (part.gate_weight != nullptr) {
    CHIMERA_RETURN_IF_ERROR(
        check_tensor(*part.gate_weight, std::array{n, config.hidden_size}, depth));
  }
  if (part.gate_bias != nullptr)
    CHIMERA_RETURN_IF_ERROR(check_tensor(*part.gate_bias, std::array{n}, depth));
  return check_grouped(part, n, config, depth);
}

/// Index of the first element whose exponent bits are all set, or -1. Whole models pass through
/// here at every start, so eight bytes are looked at together: adding the exponent's lowest bit to
/// the bare exponent carries into the sign's place exactly when it is all ones.
template <class T>
int64_t first_non_finite(std::span<const std::byte> bytes, T exponent) {
  constexpr uint64_t kOnes = sizeof(T) == 2 ? 0x0001'0001'0001'0001u : 0x0000'0001'0000'0001u;
  constexpr uint64_t kSigns = kOnes << (8 * sizeof(T) - 1);
  constexpr size_t kBlock = 4096;  // bytes between looks at what was found
  const uint64_t exponents = kOnes * exponent;
  const uint64_t lowest = kOnes * static_cast<T>(exponent & (~exponent + 1u));
  for (size_t begin = 0; begin < bytes.size(); begin += kBlock) {
    const size_t end = std::min(bytes.size(), begin + kBlock);
    give_way();
    uint64_t carries = 0;
    size_t at = begin;
    for (; at + sizeof(uint64_t) <= end; at += sizeof(uint64_t)) {
      uint64_t word;
      std::memcpy(&word, bytes.data() + at, sizeof(word));
      carries |= (word & exponents) + lowest;
    }
    if ((carries & kSigns) == 0 && at == end) continue;
    for (size_t i = begin; i + sizeof(T) <= end; i += sizeof(T)) {
      T bits;
      std::memcpy(&bits, bytes.data() + i, sizeof(T));
      if ((bits & exponent) == exponent) return static_cast<int64_t>(i / sizeof(T));
    }
  }
  return -1;
}

Status sort_into(ModuleTensors& sorted, std::span<const TensorView> tensors, BlockShape block) {
  for (const TensorView& tensor : tensors) {
    const TensorView** place = place_of(sorted, tensor.name, block);
    if (place == nullptr) {
      return {Code::kInvalidArgument,
              fmt::format("found the tensor {} (expected {})", tensor.name, kNames)};
    }
    if (*place != nullptr) {
      return {Code::kInvalidArgument,
              fmt::format("found the tensor {} in two files (expected one)", tensor.name)};
    }
    *place = &tensor;
  }
  return {};
}

}  // namespace

Result<ModuleTensors> sort_module_tensors(const std::vector<SafetensorsFile>& files) {
  ModuleTensors sorted;
  for (const SafetensorsFile& file : files) {
    const Result<BlockShape> block = block_of(file);
    if (!block.ok()) return block.status();
    CHIMERA_RETURN_IF_ERROR(sort_into(sorted, file.tensors(), *block));
  }
  return sorted;
}

Result<ModuleTensors> sort_module_tensors(std::span<const TensorView> tensors) {
  ModuleTensors sorted;
  CHIMERA_RETURN_IF_ERROR(sort_into(sorted, tensors, BlockShape{}));
  return sorted;
}

Status check_module_tensors(const ModuleTensors& tensors, const Manifest& manifest,
                            const ModelConfig& config, TensorDepth depth) {
  CHIMERA_RETURN_IF_ERROR(check_layers(tensors, manifest, config));
  if (depth == TensorDepth::kHeader) {
    for (const auto& [layer, part] : tensors)
      CHIMERA_RETURN_IF_ERROR(check_layer(layer, part, manifest, config, depth));
    return {};
  }
  std::vector<ModuleTensors::const_iterator> layers;
  for (auto at = tensors.begin(); at != tensors.end(); ++at) layers.push_back(at);
  return for_each_parallel(static_cast<int64_t>(layers.size()), [&](int64_t i) {
    const auto& [layer, part] = *layers[static_cast<size_t>(i)];
    return check_layer(layer, part, manifest, config, depth);
  });
}

Status check_module_tensors(const ModuleTensors& tensors, const Manifest& manifest,
                            const ModelConfig& config) {
  return check_module_tensors(tensors, manifest, config, TensorDepth::kContent);
}

StoredExpert stored_expert(const ExpertTensors& tensors) {
  StoredExpert out;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const ProjectionTensors& t = tensors[i];
    StoredProjection& p = out[i];
    const bool blocks = t.weight_blocks != nullptr;
    p.weight = whole_part(blocks ? *t.weight_blocks : *t.weight);
    const TensorView* scale = blocks ? t.weight_scales : t.weight_scale_inv;
    if (scale != nullptr) {
      p.encoding = blocks ? Encoding::kMxfp4 : Encoding::kFp8;
      p.scale = whole_part(*scale);
    }
    if (t.bias != nullptr) p.bias = whole_part(*t.bias);
    p.rows = p.weight.tensor.shape[0];
    p.cols = blocks ? p.weight.tensor.shape[1] * kMxfp4Block : p.weight.tensor.shape[1];
  }
  return out;
}

Status check_finite(const StoredProjection& projection, BlockShape block) {
  if (projection.bias) CHIMERA_RETURN_IF_ERROR(check_finite(projection.bias->tensor));
  if (projection.encoding == Encoding::kPlain) return check_finite(projection.weight.tensor);
  const Result<QuantMatrix> matrix = quant_matrix(projection, block);
  if (!matrix.ok()) return matrix.status();
  return matrix->check_finite(projection.weight.tensor.name);
}

Status check_finite_gate(const BaseLayer& layer) {
  CHIMERA_RETURN_IF_ERROR(check_finite(layer.gate));
  for (const auto* row : {&layer.gate_bias, &layer.score_correction}) {
    if (*row) CHIMERA_RETURN_IF_ERROR(check_finite(**row));
  }
  return {};
}

Status check_finite(const TensorView& tensor) {
  if (tensor.source != nullptr) {
    const Result<TensorView> made = loaded(tensor);
    return made.ok() ? check_finite(*made) : made.status();
  }
  int64_t at = -1;
  if (tensor.dtype == DType::kF32) at = first_non_finite<uint32_t>(tensor.bytes, 0x7f800000u);
  if (tensor.dtype == DType::kBF16) at = first_non_finite<uint16_t>(tensor.bytes, 0x7f80u);
  if (tensor.dtype == DType::kF16) at = first_non_finite<uint16_t>(tensor.bytes, 0x7c00u);
  if (is_block_type(tensor.dtype)) {
    at = first_non_finite_block(tensor.dtype, tensor.bytes);
    if (at > 0) at *= unit_of(tensor.dtype).elements;
  }
  if (is_packed_type(tensor.dtype)) at = first_non_finite_packed(tensor);
  if (at < 0) return {};
  return {Code::kDataCorrupt,
          fmt::format("tensor {}: found NaN or infinity at element {} (expected finite numbers)",
                      tensor.name, at),
          "The weights are broken; export them again."};
}

Result<std::vector<float>> matrix_to_f32(const TensorView& tensor, int64_t rows, int64_t cols) {
  const Result<Matrix> matrix = to_matrix(tensor, rows, cols, Precision::kF32);
  if (!matrix.ok()) return matrix.status();
  std::vector<float> values(static_cast<size_t>(rows * cols));
  for (int64_t r = 0; r < rows; ++r) widen_row(*matrix, r, values.data() + r * cols);
  return values;
}

}  // namespace chimera
