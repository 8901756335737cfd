#include "experts/offline/cut_module.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "backbone/checkpoint/check.h"
#include "base/io/digest.h"
#include "base/io/env.h"
#include "base/limits.h"
#include "compute/tensor/memory.h"
#include "experts/module/tensors.h"
#include "experts/offline/cut_output.h"

namespace chimera {
namespace {

Status wrong_layer(const SplitModule& module, int64_t layer, const ModelConfig& config) {
  const std::vector<int64_t> layers = moe_layers(config);
  if (layers.size() == static_cast<size_t>(config.num_layers)) {
    return {Code::kInvalidArgument, fmt::format("module {}: found layer {} (expected 0 to {})",
                                                module.name, layer, config.num_layers - 1)};
  }
  return {Code::kInvalidArgument,
          fmt::format("module {}: found layer {} (expected one of {}, the layers with a router)",
                      module.name, layer, fmt::join(layers, ", "))};
}

void add_gate(const ModuleCut& cut, const BaseLayer& base, const std::vector<int32_t>& groups,
              int64_t layer, const std::vector<int64_t>& list, std::vector<TensorView>& tensors) {
  const std::string prefix = fmt::format("layers.{}.gate.", layer);
  tensors.push_back(gather_rows(base.gate, list, prefix + "weight"));
  if (base.gate_bias) tensors.push_back(gather_rows(*base.gate_bias, list, prefix + "bias"));
  if (base.score_correction) {
    tensors.push_back(gather_rows(*base.score_correction, list, prefix + "score_correction"));
  }
  // A replacing expert stands in the group of its slot.
  if (cut.attach == Attach::kAppend && !groups.empty()) {
    tensors.push_back(group_tensor(groups, list, prefix + "group"));
  }
}

Status add_layer(const ModuleCut& cut, const CutSource& source, int64_t layer,
                 const std::vector<int64_t>& list, std::vector<TensorView>& tensors) {
  const BaseLayer& base = source.layers.at(layer);
  const bool append = cut.attach == Attach::kAppend;
  const Result<std::vector<int32_t>> groups = base_groups(base, source.config);
  if (!groups.ok()) return groups.status();
  // A replacing module without gate rows is scored by the backbone's own.
  if (append || cut.gate_layers.count(layer) != 0) {
    add_gate(cut, base, *groups, layer, list, tensors);
  }
  for (size_t i = 0; i < list.size(); ++i) {
    const int64_t number = append ? static_cast<int64_t>(i) : list[i];
    const StoredExpert& expert = base.experts[static_cast<size_t>(list[i])];
    for (size_t p = 0; p < expert.size(); ++p) {
      for (const Part part : {kWeightPart, kScalePart, kBiasPart}) {
        const StoredPart* stored = part_of(expert[p], part);
        if (stored == nullptr) continue;
        tensors.push_back(
            dense(*stored, fmt::format("layers.{}.experts.{}.{}{}", layer, number, kProjections[p],
                                       part_tail(expert[p].encoding, part))));
      }
    }
  }
  return {};
}

std::map<std::string, std::string> metadata_of(const CutSource& source) {
  std::map<std::string, std::string> metadata{{"format", "pt"}};
  const BlockShape block = source.checkpoint.block_shape();
  if (block != BlockShape{}) {
    metadata[kBlockSizeKey] = fmt::format("{},{}", block.rows, block.cols);
  }
  return metadata;
}

}  // namespace

Result<CutSource> CutSource::read(const Checkpoint& checkpoint) {
  CHIMERA_RETURN_IF_ERROR(checkpoint.check_unpacked());
  Result<ModelConfig> config = read_model_config(checkpoint);
  if (!config.ok()) return config.status();
  CHIMERA_RETURN_IF_ERROR(check_backbone_tensors(checkpoint, *config));
  CutSource source{checkpoint, std::move(*config), {}};
  for (const int64_t layer : moe_layers(source.config)) {
    Result<BaseLayer> base = read_base_layer(checkpoint, source.config, layer);
    if (!base.ok()) return base.status();
    source.layers.emplace(layer, std::move(*base));
  }
  return source;
}

Result<Slots> resolve_slots(const SplitModule& module, const ModelConfig& config) {
  Slots slots;
  if (!is_module_name(module.name)) {
    return Status(Code::kInvalidArgument,
                  fmt::format("module name \"{}\" (expected 1 to 63 of a-z, 0-9, _ and -, first a "
                              "letter or digit; not backbone or base)",
                              module.name));
  }
  const std::vector<int64_t> all = moe_layers(config);
  for (const auto& [key, list] : module.slots) {
    if (key >= 0 && !std::binary_search(all.begin(), all.end(), key)) {
      return wrong_layer(module, key, config);
    }
    for (const int64_t layer : key < 0 ? all : std::vector<int64_t>{key}) {
      slots[layer].insert(slots[layer].end(), list.begin(), list.end());
    }
  }
  for (auto& [layer, list] : slots) {
    std::sort(list.begin(), list.end());
    if (list.empty() || list.front() < 0 || list.back() >= config.num_experts) {
      return Status(Code::kInvalidArgument,
                    fmt::format("module {}, layer {}: found slots [{}] (expected some of 0 to {})",
                                module.name, layer, fmt::join(list, ", "), config.num_experts - 1));
    }
  }
  if (slots.empty()) {
    return Status(Code::kInvalidArgument, module.name + ": found no slots (expected some)");
  }
  return slots;
}

Status check_disjoint(const std::vector<SplitModule>& modules, const std::vector<Slots>& slots) {
  std::set<std::string> names;
  std::map<int64_t, std::set<int64_t>> taken;
  for (size_t m = 0; m < modules.size(); ++m) {
    if (!names.insert(modules[m].name).second) {
      return {Code::kAlreadyExists, fmt::format("module {}: named twice", modules[m].name)};
    }
    for (const auto& [layer, list] : slots[m]) {
      for (const int64_t slot : list) {
        if (taken[layer].insert(slot).second) continue;
        return {Code::kInvalidArgument,
                fmt::format("module {}, layer {}: found slot {} twice (expected every slot in one "
                            "module at most)",
                            modules[m].name, layer, slot)};
      }
    }
  }
  return {};
}

Status write_cut_module(const std::string& dir, const ModuleCut& cut, const CutSource& source) {
  const ModelConfig& config = source.config;
  std::vector<TensorView> tensors;
  for (const auto& [layer, list] : cut.slots) {
    CHIMERA_RETURN_IF_ERROR(add_layer(cut, source, layer, list, tensors));
  }
  const std::string weights = dir + "/weights.safetensors";
  CHIMERA_RETURN_IF_ERROR(write_safetensors(weights, tensors, metadata_of(source)));
  const Result<std::string> digest = sha256_of_file(weights);
  if (!digest.ok()) return digest.status();

  Manifest manifest;
  manifest.name = cut.name;
  manifest.version = "1.0.0";
  manifest.domain = manifest.name;
  manifest.description = cut.description.empty()
                             ? fmt::format("Experts split from a {} checkpoint", config.model_type)
                             : cut.description;
  manifest.parents = cut.parents;
  manifest.license = cut.license;
  manifest.attach = cut.attach;
  manifest.backbone_fingerprint = cut.fingerprint;
  manifest.hidden_size = config.hidden_size;
  if (cut.slots.size() < source.layers.size()) {
    manifest.layers.emplace();
    for (const auto& [layer, list] : cut.slots) manifest.layers->push_back(layer);
  }
  manifest.files.push_back({"weights.safetensors", *digest});
  manifest.original_slots = cut.slots;
  manifest.original_top_k = cut.original_top_k;
  // A dense family has no such number.
  if (!config.dense_base && config.num_experts_per_tok <= kMaxTopK)
    manifest.top_k = config.num_experts_per_tok;
  return write_file_durably(Env::system(), dir + "/module.yaml", manifest_yaml(manifest), 0644);
}

TensorView gather_rows(const TensorView& from, const std::vector<int64_t>& rows, std::string name) {
  std::vector<int64_t> shape = from.shape;
  const size_t row_bytes = from.bytes.size() / static_cast<size_t>(shape[0]);
  shape[0] = static_cast<int64_t>(rows.size());
  std::byte* to = nullptr;
  TensorView view = make_tensor(std::move(name), from.dtype, std::move(shape), &to);
  for (const int64_t row : rows) {
    std::memcpy(to, from.bytes.data() + static_cast<size_t>(row) * row_bytes, row_bytes);
    to += row_bytes;
  }
  return view;
}

TensorView group_tensor(const std::vector<int32_t>& groups, const std::vector<int64_t>& rows,
                        std::string name) {
  std::byte* to = nullptr;
  TensorView view =
      make_tensor(std::move(name), DType::kI32, {static_cast<int64_t>(rows.size())}, &to);
  for (const int64_t row : rows) {
    std::memcpy(to, &groups[static_cast<size_t>(row)], sizeof(int32_t));
    to += sizeof(int32_t);
  }
  return view;
}

}  // namespace chimera
