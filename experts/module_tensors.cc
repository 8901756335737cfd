#include "experts/module_tensors.h"

#include <fmt/format.h>

#include <charconv>
#include <cstring>
#include <optional>
#include <span>
#include <string_view>

#include "backbone/checkpoint.h"

namespace chimera {
namespace {

constexpr const char* kShapeHint =
    "Matrices are stored as [outputs, inputs] for the hidden size of the backbone; `chimera module "
    "inspect` shows both";

constexpr std::array<std::string_view, 3> kProjections{"gate_proj", "up_proj", "down_proj"};
constexpr std::string_view kNames =
    "layers.{L}.gate.weight, layers.{L}.gate.bias or "
    "layers.{L}.experts.{e}.{gate_proj,up_proj,down_proj}.weight";

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

/// Where a tensor of this name belongs; null when the name is none of design §6.
const TensorView** place_of(ModuleTensors& tensors, std::string_view name) {
  if (!take(name, "layers.")) return nullptr;
  const auto layer = take_index(name);
  if (!layer) return nullptr;
  if (name == "gate.weight") return &tensors[*layer].gate_weight;
  if (name == "gate.bias") return &tensors[*layer].gate_bias;
  if (!take(name, "experts.")) return nullptr;
  const auto expert = take_index(name);
  if (!expert) return nullptr;
  for (size_t i = 0; i < kProjections.size(); ++i) {
    if (name == fmt::format("{}.weight", kProjections[i])) {
      return &tensors[*layer].experts[*expert][i];
    }
  }
  return nullptr;
}

Status missing(int64_t layer, const std::string& tail) {
  return {Code::kInvalidArgument,
          fmt::format("found no tensor layers.{}.{} (expected it)", layer, tail),
          "Every expert needs gate_proj, up_proj and down_proj, every appended one a gate row."};
}

Status check_tensor(const TensorView& t, std::span<const int64_t> shape) {
  if (!std::equal(t.shape.begin(), t.shape.end(), shape.begin(), shape.end())) {
    return {Code::kInvalidArgument,
            fmt::format("tensor {}: found shape {} (expected {})", t.name, shape_string(t.shape),
                        shape_string(shape)),
            kShapeHint};
  }
  if (t.dtype != DType::kF32 && t.dtype != DType::kF16 && t.dtype != DType::kBF16) {
    return {Code::kUnimplemented,
            fmt::format("tensor {}: found dtype {} (expected F32, F16 or BF16)", t.name,
                        dtype_name(t.dtype))};
  }
  return check_finite(t);
}

Status check_layers(const ModuleTensors& tensors, const Manifest& manifest,
                    const ModelConfig& config) {
  std::map<int64_t, bool> wanted;
  if (manifest.layers) {
    for (const int64_t layer : *manifest.layers) wanted[layer] = true;
  } else {
    for (int64_t layer = 0; layer < config.num_layers; ++layer) wanted[layer] = true;
  }
  for (const auto& [layer, part] : tensors) {
    if (wanted.count(layer) != 0) continue;
    return {Code::kInvalidArgument,
            fmt::format("found tensors of layer {} (expected layers {})", layer,
                        manifest.layers ? fmt::format("{}", fmt::join(*manifest.layers, ", "))
                                        : fmt::format("0 to {}", config.num_layers - 1))};
  }
  for (const auto& [layer, unused] : wanted) {
    if (tensors.count(layer) != 0) continue;
    return {Code::kInvalidArgument,
            fmt::format("found no tensors of layer {} (expected experts there)", layer),
            "List the layers that the module has under layers in module.yaml."};
  }
  return {};
}

Status check_expert(int64_t layer, int64_t e, const std::array<const TensorView*, 3>& expert,
                    int64_t hidden) {
  for (size_t i = 0; i < expert.size(); ++i) {
    if (expert[i] == nullptr) {
      return missing(layer, fmt::format("experts.{}.{}.weight", e, kProjections[i]));
    }
  }
  const TensorView& gate = *expert[0];
  if (gate.shape.size() != 2 || gate.shape[0] < 1) {
    return {Code::kInvalidArgument,
            fmt::format("tensor {}: found shape {} (expected [width, {}])", gate.name,
                        shape_string(gate.shape), hidden),
            kShapeHint};
  }
  const int64_t width = gate.shape[0];
  CHIMERA_RETURN_IF_ERROR(check_tensor(gate, std::array{width, hidden}));
  CHIMERA_RETURN_IF_ERROR(check_tensor(*expert[1], std::array{width, hidden}));
  return check_tensor(*expert[2], std::array{hidden, width});
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

template <class T>
int64_t first_non_finite(std::span<const std::byte> bytes, T exponent) {
  const size_t n = bytes.size() / sizeof(T);
  // Whole blocks first: the inner loop has no exit, so it runs at memory speed.
  constexpr size_t kBlock = 4096;
  for (size_t begin = 0; begin < n; begin += kBlock) {
    const size_t end = std::min(n, begin + kBlock);
    unsigned bad = 0;
    for (size_t i = begin; i < end; ++i) {
      T bits;
      std::memcpy(&bits, bytes.data() + i * sizeof(T), sizeof(T));
      bad |= static_cast<unsigned>((bits & exponent) == exponent);
    }
    if (bad == 0) continue;
    for (size_t i = begin; i < end; ++i) {
      T bits;
      std::memcpy(&bits, bytes.data() + i * sizeof(T), sizeof(T));
      if ((bits & exponent) == exponent) return static_cast<int64_t>(i);
    }
  }
  return -1;
}

}  // namespace

Result<ModuleTensors> sort_module_tensors(const std::vector<SafetensorsFile>& files) {
  ModuleTensors sorted;
  for (const SafetensorsFile& file : files) {
    for (const TensorView& tensor : file.tensors()) {
      const TensorView** place = place_of(sorted, tensor.name);
      if (place == nullptr) {
        return Status(Code::kInvalidArgument,
                      fmt::format("found the tensor {} (expected {})", tensor.name, kNames));
      }
      if (*place != nullptr) {
        return Status(Code::kInvalidArgument,
                      fmt::format("found the tensor {} in two files (expected one)", tensor.name));
      }
      *place = &tensor;
    }
  }
  return sorted;
}

Status check_module_tensors(const ModuleTensors& tensors, const Manifest& manifest,
                            const ModelConfig& config) {
  CHIMERA_RETURN_IF_ERROR(check_layers(tensors, manifest, config));
  for (const auto& [layer, part] : tensors) {
    CHIMERA_RETURN_IF_ERROR(check_numbers(layer, part, manifest, config));
    for (const auto& [e, expert] : part.experts) {
      CHIMERA_RETURN_IF_ERROR(check_expert(layer, e, expert, config.hidden_size));
    }
    const auto n = static_cast<int64_t>(part.experts.size());
    if (part.gate_weight != nullptr) {
      CHIMERA_RETURN_IF_ERROR(check_tensor(*part.gate_weight, std::array{n, config.hidden_size}));
    }
    if (part.gate_bias != nullptr) {
      CHIMERA_RETURN_IF_ERROR(check_tensor(*part.gate_bias, std::array{n}));
    }
  }
  return {};
}

Status check_finite(const TensorView& tensor) {
  int64_t at = -1;
  if (tensor.dtype == DType::kF32) at = first_non_finite<uint32_t>(tensor.bytes, 0x7f800000u);
  if (tensor.dtype == DType::kBF16) at = first_non_finite<uint16_t>(tensor.bytes, 0x7f80u);
  if (tensor.dtype == DType::kF16) at = first_non_finite<uint16_t>(tensor.bytes, 0x7c00u);
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
  if (matrix->dtype == DType::kF32) {
    std::memcpy(values.data(), matrix->data, values.size() * sizeof(float));
  } else {
    const auto* narrow = static_cast<const uint16_t*>(matrix->data);
    for (size_t i = 0; i < values.size(); ++i) values[i] = bf16_to_f32(narrow[i]);
  }
  return values;
}

}  // namespace chimera
