// split_checkpoint: a checkpoint cut by slots into a backbone directory and modules.
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "backbone/checkpoint/check.h"
#include "backbone/checkpoint/fingerprint.h"
#include "base/io/env.h"
#include "experts/module/checkpoint_check.h"
#include "experts/offline/cut.h"
#include "experts/offline/cut_module.h"
#include "experts/offline/cut_output.h"

namespace chimera {
namespace {

class Splitter {
 public:
  Splitter(const SplitOptions& options, const CutSource& source)
      : options_(options), source_(source), config_(source.config) {}

  Result<SplitReport> run() {
    CHIMERA_RETURN_IF_ERROR(plan());
    OutputSet outputs;
    const Result<std::string> backbone = outputs.create(options_.backbone_out);
    if (!backbone.ok()) return backbone.status();
    CHIMERA_RETURN_IF_ERROR(write_backbone(*backbone));
    const Result<Checkpoint> written = Checkpoint::open(*backbone, Residency::kMapped);
    if (!written.ok()) return written.status();
    const Result<ModelConfig> config = read_model_config(*written);
    if (!config.ok()) return config.status();
    CHIMERA_RETURN_IF_ERROR(check_checkpoint_tensors(*written, *config));
    const Result<std::string> fingerprint = backbone_fingerprint(*written, "");
    if (!fingerprint.ok()) return fingerprint.status();

    report_.fingerprint = *fingerprint;
    for (size_t m = 0; m < options_.modules.size(); ++m) {
      report_.module_dirs.push_back(options_.modules_out + "/" + options_.modules[m].name);
      const Result<std::string> dir = outputs.create(report_.module_dirs.back());
      if (!dir.ok()) return dir.status();
      ModuleCut cut{options_.modules[m].name,
                    options_.attach,
                    slots_[m],
                    {},
                    *fingerprint,
                    options_.license,
                    {}};
      if (append()) cut.original_top_k = config_.num_experts_per_tok;
      CHIMERA_RETURN_IF_ERROR(write_cut_module(*dir, cut, source_));
    }
    CHIMERA_RETURN_IF_ERROR(outputs.commit());
    return report_;
  }

 private:
  bool append() const { return options_.attach == Attach::kAppend; }
  /// Groups that the backbone has to spell out, because they are not all of one size any more.
  bool grouped() const { return config_.n_group > 1; }

  Status plan() {
    if (options_.modules.empty()) {
      return {Code::kInvalidArgument, "found no modules (expected at least one)"};
    }
    for (const SplitModule& module : options_.modules) {
      Result<Slots> slots = resolve_slots(module, config_);
      if (!slots.ok()) return slots.status();
      slots_.push_back(std::move(*slots));
    }
    CHIMERA_RETURN_IF_ERROR(check_disjoint(options_.modules, slots_));
    report_.experts_left = config_.num_experts;
    report_.num_experts_per_tok = config_.num_experts_per_tok;
    return append() ? plan_backbone() : Status();
  }

  /// Which base experts remain in every layer.
  Status plan_backbone() {
    std::map<int64_t, std::set<int64_t>> taken;
    for (const Slots& slots : slots_) {
      for (const auto& [layer, list] : slots) taken[layer].insert(list.begin(), list.end());
    }
    for (const auto& [layer, base] : source_.layers) {
      std::vector<int64_t> left;
      for (int64_t e = 0; e < config_.num_experts; ++e) {
        if (taken[layer].count(e) == 0) left.push_back(e);
      }
      remaining_.emplace(layer, std::move(left));
      const size_t count = remaining_.at(layer).size();
      const auto& [first_layer, first] = *remaining_.begin();
      if (count == 0 || count != first.size()) {
        return {Code::kInvalidArgument,
                fmt::format("layer {}: {} experts would be left, layer {} {} (expected the same "
                            "number in every layer, and at least one)",
                            layer, count, first_layer, first.size()),
                "config.json has one expert count for all layers; --attach replace has no such "
                "limit."};
      }
    }
    report_.experts_left = static_cast<int64_t>(remaining_.begin()->second.size());
    return {};
  }

  Status write_backbone(const std::string& dir) const {
    const Checkpoint& checkpoint = source_.checkpoint;
    std::vector<TensorView> tensors;
    for (const std::string& name : checkpoint.names()) {
      if (append() && is_cut_tensor(config_, name)) continue;
      tensors.push_back(*checkpoint.find(name));
    }
    if (append()) {
      for (const auto& [layer, base] : source_.layers) {
        CHIMERA_RETURN_IF_ERROR(add_remaining(layer, base, tensors));
      }
    }
    CHIMERA_RETURN_IF_ERROR(write_checkpoint_tensors(dir, tensors, options_.shard_bytes));
    CHIMERA_RETURN_IF_ERROR(copy_side_files(checkpoint, dir));
    ConfigEdit edit{report_.experts_left, config_.num_experts_per_tok, {}, {}};
    if (report_.experts_left < config_.num_experts_per_tok) {
      edit.whole_experts = std::max(config_.num_experts, config_.whole_experts);
    }
    if (grouped()) {
      edit.grouped_experts =
          config_.grouped_experts > 0 ? config_.grouped_experts : config_.num_experts;
    }
    const Result<std::string> config =
        edit_config(checkpoint.config_json(), checkpoint.label("config.json"), edit);
    if (!config.ok()) return config.status();
    const std::string& text = append() ? *config : checkpoint.config_json();
    return write_file_durably(Env::system(), dir + "/config.json", text, 0644);
  }

  Status add_remaining(int64_t layer, const BaseLayer& base,
                       std::vector<TensorView>& tensors) const {
    const std::vector<int64_t>& left = remaining_.at(layer);
    tensors.push_back(gather_rows(base.gate, left, base.gate.name));
    for (const auto* row : {&base.gate_bias, &base.score_correction}) {
      if (*row) tensors.push_back(gather_rows(**row, left, (*row)->name));
    }
    if (grouped()) {
      const Result<std::vector<int32_t>> groups = base_groups(base, config_);
      if (!groups.ok()) return groups.status();
      tensors.push_back(group_tensor(*groups, left, expert_group_name(config_, layer)));
    }
    if (base.stacks) {
      for (const StackSpec& stack : base.stacks->stacks) {
        const std::string name = layer_tensor(config_, layer, stack.tail);
        tensors.push_back(gather_rows(*source_.checkpoint.find(name), left, name));
      }
      return {};
    }
    for (size_t e = 0; e < left.size(); ++e) {
      const StoredExpert& expert = base.experts[static_cast<size_t>(left[e])];
      for (size_t p = 0; p < expert.size(); ++p) {
        for (const Part part : {kWeightPart, kScalePart, kBiasPart}) {
          const StoredPart* stored = part_of(expert[p], part);
          if (stored == nullptr) continue;
          tensors.push_back(
              dense(*stored, single_tensor_name(config_, layer, static_cast<int64_t>(e), p,
                                                expert[p].encoding, part)));
        }
      }
    }
    return {};
  }

  const SplitOptions& options_;
  const CutSource& source_;
  const ModelConfig& config_;
  std::vector<Slots> slots_;                           // of every module
  std::map<int64_t, std::vector<int64_t>> remaining_;  // append: of every layer with a router
  SplitReport report_;
};

}  // namespace

Result<SplitReport> split_checkpoint(const SplitOptions& options) {
  if (!options.parent_dir.empty()) return split_difference(options);
  const Result<Checkpoint> checkpoint =
      Checkpoint::open(options.checkpoint_dir, Residency::kMapped);
  if (!checkpoint.ok()) return checkpoint.status();
  const Result<CutSource> source = CutSource::read(*checkpoint);
  if (!source.ok()) return source.status();
  return Splitter(options, *source).run();
}

}  // namespace chimera
