// graft_checkpoint: a backbone directory and modules put together into one checkpoint.
#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <set>

#include "backbone/checkpoint/check.h"
#include "backbone/checkpoint/checkpoint.h"
#include "backbone/checkpoint/fingerprint.h"
#include "backbone/families/model_config.h"
#include "base/io/env.h"
#include "experts/bundle/average.h"
#include "experts/module/base_tensors.h"
#include "experts/module/checkpoint_check.h"
#include "experts/module/payload.h"
#include "experts/offline/cut.h"
#include "experts/offline/cut_output.h"
#include "experts/offline/graft_layer.h"

namespace chimera {
namespace {

class Grafter {
 public:
  Grafter(const GraftOptions& options, const Checkpoint& backbone, ModelConfig config)
      : options_(options), backbone_(backbone), config_(std::move(config)) {}

  Result<GraftReport> run() {
    CHIMERA_RETURN_IF_ERROR(open_modules());
    CHIMERA_RETURN_IF_ERROR(count_experts());
    report_.original_slots = slots_recorded();
    std::vector<TensorView> grafted;
    for (const int64_t layer : moe_layers(config_)) {
      CHIMERA_RETURN_IF_ERROR(add_layer(layer, grafted));
    }
    std::vector<TensorView> tensors;
    std::set<std::string> written;  // a dense family has the expert's tensors among its own
    Result<std::vector<TensorView>> shared = shared_tensors();
    if (!shared.ok()) return shared.status();
    for (TensorView& tensor : *shared) grafted.push_back(std::move(tensor));
    for (const TensorView& tensor : grafted) written.insert(tensor.name);
    for (const std::string& name : backbone_.names()) {
      if (is_cut_tensor(config_, name) || written.count(name) != 0) continue;
      tensors.push_back(*backbone_.find(name));
    }
    tensors.insert(tensors.end(), grafted.begin(), grafted.end());
    CHIMERA_RETURN_IF_ERROR(write(tensors));
    return report_;
  }

 private:
  bool is_append(size_t m) const { return modules_[m].manifest.attach == Attach::kAppend; }

  Status open_modules() {
    const Result<std::string> fingerprint = backbone_fingerprint(backbone_, "");
    if (!fingerprint.ok()) return fingerprint.status();
    for (const std::string& dir : options_.module_dirs) {
      Result<ModulePayload> module = open_module_payload(dir, config_, *fingerprint, nullptr,
                                                         PayloadKinds::kWeightsAndBundles);
      if (!module.ok()) return module.status();
      modules_.push_back(std::move(*module));
      if (!config_.dense_base || !is_append(modules_.size() - 1)) continue;
      return {Code::kFailedPrecondition,
              fmt::format("module {}: found attach append (expected replace: a checkpoint of {} "
                          "has one feed-forward per layer)",
                          modules_.back().manifest.name, config_.model_type)};
    }
    return {};
  }

  /// What the bundles among the modules make of the backbone's tensors.
  Result<std::vector<TensorView>> shared_tensors() const {
    std::vector<std::vector<SharedChange>> changes;
    std::vector<double> weights;
    for (const ModulePayload& module : modules_) {
      if (!module.shared) continue;
      auto sorted = sort_shared_tensors(*module.shared, config_, TensorDepth::kContent,
                                        "module " + module.manifest.name);
      if (!sorted.ok()) return sorted.status();
      changes.push_back(std::move(*sorted));
      weights.push_back(module.manifest.shared->weight);
    }
    std::vector<WeightedChanges> bundles;
    for (size_t i = 0; i < changes.size(); ++i) bundles.push_back({weights[i], changes[i]});
    ThreadPool pool(auto_threads());
    return averaged_tensors(backbone_, config_, bundles, pool);
  }

  /// Every layer with a router must end with the same number of experts.
  Status count_experts() {
    report_.experts = config_.num_experts;
    report_.num_experts_per_tok = config_.num_experts_per_tok;
    std::map<int64_t, int64_t> count;
    for (const int64_t layer : moe_layers(config_)) count[layer] = config_.num_experts;
    for (size_t m = 0; m < modules_.size(); ++m) {
      if (!is_append(m)) continue;
      for (const auto& [layer, part] : modules_[m].tensors) {
        count[layer] += static_cast<int64_t>(part.experts.size());
      }
      const auto& recorded = modules_[m].manifest.original_top_k;
      if (recorded) report_.num_experts_per_tok = *recorded;
    }
    const auto& [first_layer, first] = *count.begin();
    for (const auto& [layer, n] : count) {
      if (n == first) continue;
      return {Code::kFailedPrecondition,
              fmt::format("layer {} would have {} experts, layer {} {} (expected the same number)",
                          layer, n, first_layer, first),
              "config.json has one expert count for all layers; graft modules that together "
              "cover every layer."};
    }
    report_.experts = first;
    return {};
  }

  /// True when the recorded slots of all appending modules fill distinct places of every layer.
  bool slots_recorded() const {
    bool any = false;
    std::set<std::pair<int64_t, int64_t>> taken;  // layer, slot
    for (size_t m = 0; m < modules_.size(); ++m) {
      if (!is_append(m)) continue;
      any = true;
      const auto& recorded = modules_[m].manifest.original_slots;
      for (const auto& [layer, part] : modules_[m].tensors) {
        const auto at = recorded.find(layer);
        if (at == recorded.end() || at->second.size() != part.experts.size()) return false;
        for (const int64_t slot : at->second) {
          if (slot >= report_.experts || !taken.emplace(layer, slot).second) return false;
        }
      }
    }
    return any;
  }

  Status add_layer(int64_t layer, std::vector<TensorView>& tensors) const {
    Result<BaseLayer> base = read_base_layer(backbone_, config_, layer);
    if (!base.ok()) return base.status();
    Result<std::vector<int32_t>> groups = base_groups(*base, config_);
    if (!groups.ok()) return groups.status();
    GraftLayer graft(config_, layer, std::move(*base), std::move(*groups), report_.experts);
    for (size_t m = 0; m < modules_.size(); ++m) {
      const auto part = modules_[m].tensors.find(layer);
      if (!is_append(m) || part == modules_[m].tensors.end()) continue;
      const std::vector<int64_t>* slots =
          report_.original_slots ? &modules_[m].manifest.original_slots.at(layer) : nullptr;
      CHIMERA_RETURN_IF_ERROR(graft.append(modules_[m].manifest.name, part->second, slots));
    }
    graft.place_base();
    for (size_t m = 0; m < modules_.size(); ++m) {
      const auto part = modules_[m].tensors.find(layer);
      if (is_append(m) || part == modules_[m].tensors.end()) continue;
      CHIMERA_RETURN_IF_ERROR(graft.replace(modules_[m].manifest.name, part->second));
    }
    return graft.write(tensors);
  }

  Status write(const std::vector<TensorView>& tensors) const {
    Result<OutputDirectory> out = OutputDirectory::create(options_.out_dir);
    if (!out.ok()) return out.status();
    CHIMERA_RETURN_IF_ERROR(
        write_checkpoint_tensors(out->partial(), tensors, options_.shard_bytes));
    CHIMERA_RETURN_IF_ERROR(copy_side_files(backbone_, out->partial()));
    std::string config = backbone_.config_json();
    if (!config_.dense_base) {
      ConfigEdit edit{report_.experts, report_.num_experts_per_tok, {}, {}};
      if (report_.experts < edit.num_experts_per_tok) {
        edit.whole_experts = std::max(edit.num_experts_per_tok, config_.whole_experts);
      }
      Result<std::string> edited = edit_config(config, backbone_.label("config.json"), edit);
      if (!edited.ok()) return edited.status();
      config = std::move(*edited);
    }
    CHIMERA_RETURN_IF_ERROR(
        write_file_durably(Env::system(), out->partial() + "/config.json", config, 0644));
    const Result<Checkpoint> written = Checkpoint::open(out->partial(), Residency::kMapped);
    if (!written.ok()) return written.status();
    const Result<ModelConfig> parsed = read_model_config(*written);
    if (!parsed.ok()) return parsed.status();
    CHIMERA_RETURN_IF_ERROR(check_checkpoint_tensors(*written, *parsed));
    return out->commit();
  }

  const GraftOptions& options_;
  const Checkpoint& backbone_;
  const ModelConfig config_;
  std::vector<ModulePayload> modules_;
  GraftReport report_;
};

}  // namespace

Result<GraftReport> graft_checkpoint(const GraftOptions& options) {
  const Result<Checkpoint> backbone = Checkpoint::open(options.backbone_dir, Residency::kMapped);
  if (!backbone.ok()) return backbone.status();
  CHIMERA_RETURN_IF_ERROR(backbone->check_unpacked());
  Result<ModelConfig> config = read_model_config(*backbone);
  if (!config.ok()) return config.status();
  return Grafter(options, *backbone, std::move(*config)).run();
}

}  // namespace chimera
