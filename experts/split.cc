// split_checkpoint: a checkpoint cut into a backbone directory and modules.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "backbone/backbone.h"
#include "backbone/checkpoint.h"
#include "backbone/digest.h"
#include "backbone/env.h"
#include "backbone/model_config.h"
#include "experts/base_tensors.h"
#include "experts/cut.h"
#include "experts/cut_output.h"

namespace chimera {
namespace {

using Slots = std::map<int64_t, std::vector<int64_t>>;  // by layer, ascending

constexpr std::array kProjections{"gate_proj", "up_proj", "down_proj"};

/// Slots of one module, layer by layer, checked against the checkpoint.
Result<Slots> resolve_slots(const SplitModule& module, const ModelConfig& config) {
  Slots slots;
  if (!is_module_name(module.name)) {
    return Status(Code::kInvalidArgument,
                  fmt::format("module name \"{}\" (expected 1 to 63 of a-z, 0-9, _ and -, first a "
                              "letter or digit; not backbone or base)",
                              module.name));
  }
  for (const auto& [key, list] : module.slots) {
    if (key < -1 || key >= config.num_layers) {
      return Status(Code::kInvalidArgument,
                    fmt::format("module {}: found layer {} (expected 0 to {})", module.name, key,
                                config.num_layers - 1));
    }
    for (int64_t layer = key < 0 ? 0 : key; layer < (key < 0 ? config.num_layers : key + 1);
         ++layer) {
      std::vector<int64_t>& all = slots[layer];
      all.insert(all.end(), list.begin(), list.end());
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

class Splitter {
 public:
  Splitter(const SplitOptions& options, const Checkpoint& checkpoint, ModelConfig config)
      : options_(options), checkpoint_(checkpoint), config_(std::move(config)) {}

  Result<SplitReport> run() {
    CHIMERA_RETURN_IF_ERROR(plan());
    for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
      Result<BaseLayer> read = read_base_layer(checkpoint_, config_, layer);
      if (!read.ok()) return read.status();
      layers_.push_back(std::move(*read));
    }
    Result<OutputDirectory> backbone = OutputDirectory::create(options_.backbone_out);
    if (!backbone.ok()) return backbone.status();
    CHIMERA_RETURN_IF_ERROR(write_backbone(backbone->partial()));
    const Result<Checkpoint> written = Checkpoint::open(backbone->partial(), Residency::kMapped);
    if (!written.ok()) return written.status();
    const Result<std::string> fingerprint = backbone_fingerprint(*written, "");
    if (!fingerprint.ok()) return fingerprint.status();

    report_.fingerprint = *fingerprint;
    std::vector<OutputDirectory> modules;
    for (size_t m = 0; m < options_.modules.size(); ++m) {
      report_.module_dirs.push_back(options_.modules_out + "/" + options_.modules[m].name);
      Result<OutputDirectory> dir = OutputDirectory::create(report_.module_dirs.back());
      if (!dir.ok()) return dir.status();
      CHIMERA_RETURN_IF_ERROR(write_module(m, dir->partial()));
      modules.push_back(std::move(*dir));
    }
    CHIMERA_RETURN_IF_ERROR(backbone->commit());
    for (OutputDirectory& module : modules) CHIMERA_RETURN_IF_ERROR(module.commit());
    return report_;
  }

 private:
  bool append() const { return options_.attach == Attach::kAppend; }

  Status plan() {
    if (options_.modules.empty()) {
      return {Code::kInvalidArgument, "found no modules (expected at least one)"};
    }
    std::set<std::string> names;
    std::map<int64_t, std::set<int64_t>> taken;
    for (const SplitModule& module : options_.modules) {
      Result<Slots> slots = resolve_slots(module, config_);
      if (!slots.ok()) return slots.status();
      if (!names.insert(module.name).second) {
        return {Code::kAlreadyExists, fmt::format("module {}: named twice", module.name)};
      }
      for (const auto& [layer, list] : *slots) {
        for (const int64_t slot : list) {
          if (taken[layer].insert(slot).second) continue;
          return {Code::kInvalidArgument,
                  fmt::format("module {}, layer {}: found slot {} twice (expected every slot in "
                              "one module at most)",
                              module.name, layer, slot)};
        }
      }
      slots_.push_back(std::move(*slots));
    }
    report_.experts_left = config_.num_experts;
    report_.num_experts_per_tok = config_.num_experts_per_tok;
    report_.original_num_experts_per_tok = config_.num_experts_per_tok;
    return append() ? plan_backbone(taken) : Status();
  }

  /// Which base experts remain in every layer.
  Status plan_backbone(const std::map<int64_t, std::set<int64_t>>& taken) {
    for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
      const auto gone = taken.find(layer);
      std::vector<int64_t> left;
      for (int64_t e = 0; e < config_.num_experts; ++e) {
        if (gone == taken.end() || gone->second.count(e) == 0) left.push_back(e);
      }
      remaining_.push_back(std::move(left));
      if (remaining_[static_cast<size_t>(layer)].empty() ||
          remaining_[static_cast<size_t>(layer)].size() != remaining_[0].size()) {
        return {
            Code::kInvalidArgument,
            fmt::format("layer {}: {} experts would be left, layer 0 {} (expected the same "
                        "number in every layer, and at least one)",
                        layer, remaining_[static_cast<size_t>(layer)].size(), remaining_[0].size()),
            "config.json has one expert count for all layers; --attach replace has no such "
            "limit."};
      }
    }
    report_.experts_left = static_cast<int64_t>(remaining_[0].size());
    report_.num_experts_per_tok = std::min(report_.experts_left, config_.num_experts_per_tok);
    return {};
  }

  Status write_backbone(const std::string& dir) const {
    std::vector<TensorView> tensors;
    for (const std::string& name : checkpoint_.names()) {
      if (append() && is_expert_tensor(config_, name)) continue;
      tensors.push_back(*checkpoint_.find(name));
    }
    for (int64_t layer = 0; append() && layer < config_.num_layers; ++layer) {
      add_remaining(layer, tensors);
    }
    CHIMERA_RETURN_IF_ERROR(write_checkpoint_tensors(dir, tensors, options_.shard_bytes));
    CHIMERA_RETURN_IF_ERROR(copy_side_files(checkpoint_.dir(), dir));
    const Result<std::string> config =
        edit_config(checkpoint_.config_json(), checkpoint_.dir() + "/config.json",
                    report_.experts_left, report_.num_experts_per_tok);
    if (!config.ok()) return config.status();
    const std::string& text = append() ? *config : checkpoint_.config_json();
    return write_file_durably(Env::system(), dir + "/config.json", text, 0644);
  }

  void add_remaining(int64_t layer, std::vector<TensorView>& tensors) const {
    const BaseLayer& base = layers_[static_cast<size_t>(layer)];
    const std::vector<int64_t>& left = remaining_[static_cast<size_t>(layer)];
    tensors.push_back(gather_rows(base.gate, left, base.gate.name));
    if (base.fused) {
      const TensorNames& names = tensor_names(config_);
      for (const std::string& tail : {names.fused_gate_up, names.fused_down}) {
        const std::string name = layer_tensor(config_, layer, tail);
        tensors.push_back(gather_rows(*checkpoint_.find(name), left, name));
      }
      return;
    }
    for (size_t e = 0; e < left.size(); ++e) {
      const ExpertViews& expert = base.experts[static_cast<size_t>(left[e])];
      const TensorNames& names = tensor_names(config_);
      const std::array tails{names.expert_gate, names.expert_up, names.expert_down};
      for (size_t i = 0; i < expert.size(); ++i) {
        TensorView view = expert[i];
        view.name = expert_tensor(config_, layer, static_cast<int64_t>(e), tails[i]);
        tensors.push_back(std::move(view));
      }
    }
  }

  Status write_module(size_t m, const std::string& dir) const {
    std::vector<TensorView> tensors;
    for (const auto& [layer, list] : slots_[m]) add_module_layer(layer, list, tensors);
    const std::string weights = dir + "/weights.safetensors";
    CHIMERA_RETURN_IF_ERROR(write_safetensors(weights, tensors, {{"format", "pt"}}));
    const Result<std::string> digest = sha256_of_file(weights);
    if (!digest.ok()) return digest.status();

    Manifest manifest;
    manifest.name = options_.modules[m].name;
    manifest.version = "1.0.0";
    manifest.domain = manifest.name;
    manifest.description = fmt::format("Experts split from a {} checkpoint", config_.model_type);
    manifest.license = options_.license;
    manifest.attach = options_.attach;
    manifest.backbone_fingerprint = report_.fingerprint;
    manifest.hidden_size = config_.hidden_size;
    if (slots_[m].size() < static_cast<size_t>(config_.num_layers)) {
      manifest.layers.emplace();
      for (const auto& [layer, list] : slots_[m]) manifest.layers->push_back(layer);
    }
    manifest.files.push_back({"weights.safetensors", *digest});
    manifest.original_slots = slots_[m];
    if (append()) manifest.original_top_k = config_.num_experts_per_tok;
    return write_file_durably(Env::system(), dir + "/module.yaml", manifest_yaml(manifest), 0644);
  }

  void add_module_layer(int64_t layer, const std::vector<int64_t>& list,
                        std::vector<TensorView>& tensors) const {
    const BaseLayer& base = layers_[static_cast<size_t>(layer)];
    // A replacing module without gate rows is scored by the backbone's own.
    if (append()) {
      tensors.push_back(gather_rows(base.gate, list, fmt::format("layers.{}.gate.weight", layer)));
    }
    for (size_t i = 0; i < list.size(); ++i) {
      const int64_t number = append() ? static_cast<int64_t>(i) : list[i];
      const ExpertViews& expert = base.experts[static_cast<size_t>(list[i])];
      for (size_t p = 0; p < expert.size(); ++p) {
        TensorView view = expert[p];
        view.name = fmt::format("layers.{}.experts.{}.{}.weight", layer, number, kProjections[p]);
        tensors.push_back(std::move(view));
      }
    }
  }

  /// The given entries of the first dimension, in that order, under `name`.
  static TensorView gather_rows(const TensorView& from, const std::vector<int64_t>& rows,
                                std::string name) {
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

  const SplitOptions& options_;
  const Checkpoint& checkpoint_;
  const ModelConfig config_;
  std::vector<Slots> slots_;                     // of every module
  std::vector<std::vector<int64_t>> remaining_;  // append: of every layer
  std::vector<BaseLayer> layers_;
  SplitReport report_;
};

}  // namespace

Result<SplitReport> split_checkpoint(const SplitOptions& options) {
  const Result<Checkpoint> checkpoint =
      Checkpoint::open(options.checkpoint_dir, Residency::kMapped);
  if (!checkpoint.ok()) return checkpoint.status();
  Result<ModelConfig> config =
      parse_model_config(checkpoint->config_json(), options.checkpoint_dir + "/config.json");
  if (!config.ok()) return config.status();
  return Splitter(options, *checkpoint, std::move(*config)).run();
}

}  // namespace chimera
