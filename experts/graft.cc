// graft_checkpoint: a backbone directory and modules put together into one checkpoint.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <optional>

#include "backbone/backbone.h"
#include "backbone/checkpoint.h"
#include "backbone/env.h"
#include "backbone/model_config.h"
#include "experts/base_tensors.h"
#include "experts/cut.h"
#include "experts/cut_output.h"
#include "experts/module_payload.h"

namespace chimera {
namespace {

/// One gate row and where it comes from.
struct GateRow {
  const TensorView* from = nullptr;
  int64_t row = 0;
};

struct GraftedExpert {
  ExpertViews views;
  GateRow gate;
};

class Grafter {
 public:
  Grafter(const GraftOptions& options, const Checkpoint& backbone, ModelConfig config)
      : options_(options), backbone_(backbone), config_(std::move(config)) {}

  Result<GraftReport> run() {
    CHIMERA_RETURN_IF_ERROR(open_modules());
    CHIMERA_RETURN_IF_ERROR(count_experts());
    report_.original_slots = slots_recorded();
    std::vector<TensorView> tensors;
    for (const std::string& name : backbone_.names()) {
      if (!is_expert_tensor(config_, name)) tensors.push_back(*backbone_.find(name));
    }
    for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
      Result<BaseLayer> base = read_base_layer(backbone_, config_, layer);
      if (!base.ok()) return base.status();
      layers_.push_back(std::move(*base));
    }
    for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
      CHIMERA_RETURN_IF_ERROR(add_layer(layer, tensors));
    }
    CHIMERA_RETURN_IF_ERROR(write(tensors));
    return report_;
  }

 private:
  bool is_append(size_t m) const { return modules_[m].manifest.attach == Attach::kAppend; }

  Status open_modules() {
    const Result<std::string> fingerprint = backbone_fingerprint(backbone_, "");
    if (!fingerprint.ok()) return fingerprint.status();
    for (const std::string& dir : options_.module_dirs) {
      Result<ModulePayload> module = open_module_payload(dir, config_, *fingerprint);
      if (!module.ok()) return module.status();
      modules_.push_back(std::move(*module));
    }
    return {};
  }

  /// Every layer must end with the same number of experts.
  Status count_experts() {
    report_.experts = config_.num_experts;
    report_.num_experts_per_tok = config_.num_experts_per_tok;
    std::vector<int64_t> count(static_cast<size_t>(config_.num_layers), config_.num_experts);
    for (size_t m = 0; m < modules_.size(); ++m) {
      if (!is_append(m)) continue;
      for (const auto& [layer, part] : modules_[m].tensors) {
        count[static_cast<size_t>(layer)] += static_cast<int64_t>(part.experts.size());
      }
      const auto& recorded = modules_[m].manifest.original_top_k;
      if (recorded) report_.num_experts_per_tok = *recorded;
    }
    for (size_t layer = 0; layer < count.size(); ++layer) {
      if (count[layer] == count[0]) continue;
      return {Code::kFailedPrecondition,
              fmt::format("layer {} would have {} experts, layer 0 {} (expected the same number)",
                          layer, count[layer], count[0]),
              "config.json has one expert count for all layers; graft modules that together "
              "cover every layer."};
    }
    report_.experts = count[0];
    report_.num_experts_per_tok = std::min(report_.num_experts_per_tok, report_.experts);
    return {};
  }

  /// True when the recorded slots of all appending modules fill distinct places of every layer.
  bool slots_recorded() const {
    bool any = false;
    std::vector<std::vector<uint8_t>> taken(
        static_cast<size_t>(config_.num_layers),
        std::vector<uint8_t>(static_cast<size_t>(report_.experts), 0));
    for (size_t m = 0; m < modules_.size(); ++m) {
      if (!is_append(m)) continue;
      any = true;
      const auto& recorded = modules_[m].manifest.original_slots;
      for (const auto& [layer, part] : modules_[m].tensors) {
        const auto at = recorded.find(layer);
        if (at == recorded.end() || at->second.size() != part.experts.size()) return false;
        for (const int64_t slot : at->second) {
          if (slot >= report_.experts) return false;
          uint8_t& mark = taken[static_cast<size_t>(layer)][static_cast<size_t>(slot)];
          if (mark++ != 0) return false;
        }
      }
    }
    return any;
  }

  Status add_layer(int64_t layer, std::vector<TensorView>& tensors) const {
    std::vector<std::optional<GraftedExpert>> placed(static_cast<size_t>(report_.experts));
    CHIMERA_RETURN_IF_ERROR(place_appended(layer, placed));
    std::vector<size_t> base_at = place_base(layer, placed);
    CHIMERA_RETURN_IF_ERROR(place_replaced(layer, base_at, placed));

    const BaseLayer& base = layers_[static_cast<size_t>(layer)];
    tensors.push_back(gate_tensor(base.gate, placed));
    return base.fused ? add_fused(layer, placed, tensors) : add_single(layer, placed, tensors);
  }

  Status place_appended(int64_t layer, std::vector<std::optional<GraftedExpert>>& placed) const {
    auto next = static_cast<size_t>(config_.num_experts);
    for (size_t m = 0; m < modules_.size(); ++m) {
      const auto part = modules_[m].tensors.find(layer);
      if (!is_append(m) || part == modules_[m].tensors.end()) continue;
      for (const auto& [e, views] : part->second.experts) {
        const auto number = static_cast<size_t>(e);
        const size_t at =
            report_.original_slots
                ? static_cast<size_t>(modules_[m].manifest.original_slots.at(layer)[number])
                : next++;
        Result<GraftedExpert> expert = module_expert(m, layer, views);
        if (!expert.ok()) return expert.status();
        expert->gate = {part->second.gate_weight, e};
        placed[at] = std::move(*expert);
      }
    }
    return {};
  }

  /// Base experts fill what is free, in order; returns where each went.
  std::vector<size_t> place_base(int64_t layer,
                                 std::vector<std::optional<GraftedExpert>>& placed) const {
    const BaseLayer& base = layers_[static_cast<size_t>(layer)];
    std::vector<size_t> base_at;
    for (size_t at = 0; at < placed.size(); ++at) {
      if (placed[at]) continue;
      const size_t e = base_at.size();
      placed[at] = GraftedExpert{base.experts[e], {&base.gate, static_cast<int64_t>(e)}};
      base_at.push_back(at);
    }
    return base_at;
  }

  Status place_replaced(int64_t layer, const std::vector<size_t>& base_at,
                        std::vector<std::optional<GraftedExpert>>& placed) const {
    for (size_t m = 0; m < modules_.size(); ++m) {
      const auto part = modules_[m].tensors.find(layer);
      if (is_append(m) || part == modules_[m].tensors.end()) continue;
      const BaseLayer& base = layers_[static_cast<size_t>(layer)];
      int64_t row = 0;
      for (const auto& [slot, views] : part->second.experts) {
        Result<GraftedExpert> expert = module_expert(m, layer, views);
        if (!expert.ok()) return expert.status();
        expert->gate = part->second.gate_weight != nullptr ? GateRow{part->second.gate_weight, row}
                                                           : GateRow{&base.gate, slot};
        placed[base_at[static_cast<size_t>(slot)]] = std::move(*expert);
        ++row;
      }
    }
    return {};
  }

  Result<GraftedExpert> module_expert(size_t m, int64_t layer,
                                      const std::array<const TensorView*, 3>& views) const {
    const ModulePayload& module = modules_[m];
    const TensorView* bias = module.tensors.at(layer).gate_bias;
    const auto is_zero = [](std::byte b) { return b == std::byte{0}; };
    if (bias != nullptr && !std::all_of(bias->bytes.begin(), bias->bytes.end(), is_zero)) {
      return Status(Code::kFailedPrecondition,
                    fmt::format("module {}, layer {}: found a gate bias (expected none: {} has "
                                "no place for it)",
                                module.manifest.name, layer, config_.model_type));
    }
    if (views[0]->shape[0] != config_.intermediate_size) {
      return Status(
          Code::kFailedPrecondition,
          fmt::format("module {}, layer {}: found experts {} wide (expected {}, as the "
                      "backbone's)",
                      module.manifest.name, layer, views[0]->shape[0], config_.intermediate_size));
    }
    return GraftedExpert{{*views[0], *views[1], *views[2]}, {}};
  }

  TensorView gate_tensor(const TensorView& base,
                         const std::vector<std::optional<GraftedExpert>>& placed) const {
    DType dtype = base.dtype;
    for (const auto& expert : placed) {
      if (expert->gate.from->dtype != dtype) dtype = DType::kF32;  // exact for F16 and BF16
    }
    std::byte* to = nullptr;
    TensorView gate = make_tensor(base.name, dtype, {report_.experts, config_.hidden_size}, &to);
    const size_t row_bytes = gate.bytes.size() / placed.size();
    for (const auto& expert : placed) {
      copy_row(expert->gate, dtype, row_bytes, to);
      to += row_bytes;
    }
    return gate;
  }

  void copy_row(const GateRow& row, DType dtype, size_t row_bytes, std::byte* to) const {
    const auto hidden = static_cast<size_t>(config_.hidden_size);
    const size_t from_bytes = hidden * static_cast<size_t>(dtype_bits(row.from->dtype)) / 8;
    const std::byte* from = row.from->bytes.data() + static_cast<size_t>(row.row) * from_bytes;
    if (row.from->dtype == dtype) {
      std::memcpy(to, from, row_bytes);
      return;
    }
    for (size_t i = 0; i < hidden; ++i) {
      uint16_t bits = 0;
      std::memcpy(&bits, from + 2 * i, sizeof(bits));
      const float value = row.from->dtype == DType::kF16 ? f16_to_f32(bits) : bf16_to_f32(bits);
      std::memcpy(to + 4 * i, &value, sizeof(value));
    }
  }

  Status add_single(int64_t layer, const std::vector<std::optional<GraftedExpert>>& placed,
                    std::vector<TensorView>& tensors) const {
    const TensorNames& names = tensor_names(config_);
    const std::array tails{names.expert_gate, names.expert_up, names.expert_down};
    for (size_t e = 0; e < placed.size(); ++e) {
      for (size_t i = 0; i < tails.size(); ++i) {
        TensorView view = placed[e]->views[i];
        view.name = expert_tensor(config_, layer, static_cast<int64_t>(e), tails[i]);
        tensors.push_back(std::move(view));
      }
    }
    return {};
  }

  /// gate_up [E, 2 * width, hidden], gate rows first; down [E, hidden, width].
  Status add_fused(int64_t layer, const std::vector<std::optional<GraftedExpert>>& placed,
                   std::vector<TensorView>& tensors) const {
    const TensorNames& names = tensor_names(config_);
    const DType dtype = layers_[static_cast<size_t>(layer)].experts[0][0].dtype;
    const int64_t hidden = config_.hidden_size;
    const int64_t width = config_.intermediate_size;
    std::byte* gate_up = nullptr;
    std::byte* down = nullptr;
    tensors.push_back(make_tensor(layer_tensor(config_, layer, names.fused_gate_up), dtype,
                                  {report_.experts, 2 * width, hidden}, &gate_up));
    tensors.push_back(make_tensor(layer_tensor(config_, layer, names.fused_down), dtype,
                                  {report_.experts, hidden, width}, &down));
    for (const auto& expert : placed) {
      for (size_t i = 0; i < expert->views.size(); ++i) {
        const TensorView& view = expert->views[i];
        if (view.dtype != dtype) {
          return {Code::kFailedPrecondition,
                  fmt::format("tensor {}: found dtype {} (expected {}, as the backbone's stack of "
                              "experts)",
                              view.name, dtype_name(view.dtype), dtype_name(dtype))};
        }
        std::byte*& to = i == 2 ? down : gate_up;
        std::memcpy(to, view.bytes.data(), view.bytes.size());
        to += view.bytes.size();
      }
    }
    return {};
  }

  Status write(const std::vector<TensorView>& tensors) const {
    Result<OutputDirectory> out = OutputDirectory::create(options_.out_dir);
    if (!out.ok()) return out.status();
    CHIMERA_RETURN_IF_ERROR(
        write_checkpoint_tensors(out->partial(), tensors, options_.shard_bytes));
    CHIMERA_RETURN_IF_ERROR(copy_side_files(backbone_.dir(), out->partial()));
    const Result<std::string> config =
        edit_config(backbone_.config_json(), backbone_.dir() + "/config.json", report_.experts,
                    report_.num_experts_per_tok);
    if (!config.ok()) return config.status();
    CHIMERA_RETURN_IF_ERROR(
        write_file_durably(Env::system(), out->partial() + "/config.json", *config, 0644));
    return out->commit();
  }

  const GraftOptions& options_;
  const Checkpoint& backbone_;
  const ModelConfig config_;
  std::vector<ModulePayload> modules_;
  std::vector<BaseLayer> layers_;
  GraftReport report_;
};

}  // namespace

Result<GraftReport> graft_checkpoint(const GraftOptions& options) {
  const Result<Checkpoint> backbone = Checkpoint::open(options.backbone_dir, Residency::kMapped);
  if (!backbone.ok()) return backbone.status();
  Result<ModelConfig> config =
      parse_model_config(backbone->config_json(), options.backbone_dir + "/config.json");
  if (!config.ok()) return config.status();
  return Grafter(options, *backbone, std::move(*config)).run();
}

}  // namespace chimera
