// split_checkpoint by difference: what a fine-tune changed against its parent becomes modules of
// the parent's backbone.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "backbone/backbone.h"
#include "backbone/checkpoint/fingerprint.h"
#include "base/json/reader.h"
#include "compute/tensor/tensor_source.h"
#include "experts/offline/cut.h"
#include "experts/offline/cut_module.h"
#include "experts/offline/cut_output.h"

namespace chimera {
namespace {

constexpr size_t kMostNamed = 3;  // of a list of differences, in messages

bool same_bytes(const TensorView& a, const TensorView& b) {
  if (a.source != nullptr || b.source != nullptr) {
    const Result<TensorView> x = loaded(a), y = loaded(b);
    return x.ok() && y.ok() && same_bytes(*x, *y);
  }
  return a.dtype == b.dtype && a.bytes.size() == b.bytes.size() &&
         std::memcmp(a.bytes.data(), b.bytes.data(), a.bytes.size()) == 0;
}

bool same_part(const StoredPart* a, const StoredPart* b) {
  if ((a == nullptr) != (b == nullptr)) return false;
  return a == nullptr || (a->shape == b->shape && same_bytes(dense(*a, ""), dense(*b, "")));
}

bool same_expert(const StoredExpert& a, const StoredExpert& b) {
  for (size_t p = 0; p < a.size(); ++p) {
    if (a[p].encoding != b[p].encoding) return false;
    for (const Part part : {kWeightPart, kScalePart, kBiasPart}) {
      if (!same_part(part_of(a[p], part), part_of(b[p], part))) return false;
    }
  }
  return true;
}

/// Row `e` of what the router stores per expert.
bool same_row(const TensorView& a, const TensorView& b, int64_t e) {
  const auto row = [e](const TensorView& t) {
    const size_t bytes = t.bytes.size() / static_cast<size_t>(t.shape[0]);
    return t.bytes.subspan(static_cast<size_t>(e) * bytes, bytes);
  };
  const auto x = row(a);
  const auto y = row(b);
  return a.dtype == b.dtype && std::equal(x.begin(), x.end(), y.begin(), y.end());
}

bool same_gate(const BaseLayer& a, const BaseLayer& b, int64_t e) {
  const auto both = [e](const std::optional<TensorView>& x, const std::optional<TensorView>& y) {
    return x.has_value() == y.has_value() && (!x || same_row(*x, *y, e));
  };
  return same_row(a.gate, b.gate, e) && both(a.gate_bias, b.gate_bias) &&
         both(a.score_correction, b.score_correction) && both(a.expert_group, b.expert_group);
}

/// Keys whose values differ, for messages.
std::string different_keys(const std::string& a, const std::string& b) {
  const Result<Json> x = parse_json(a), y = parse_json(b);
  std::vector<std::string> keys;
  if (!x.ok() || !y.ok()) return "";
  for (const auto& [key, value] : x->items()) {
    const Json* other = y->find(key);
    if (other == nullptr || *other != value) keys.push_back(key);
  }
  return fmt::format("{}", fmt::join(keys, ", "));
}

/// Names of the tensors that make up the experts of a dense family.
std::set<std::string> dense_expert_names(const CutSource& source) {
  std::set<std::string> names;
  if (!source.config.dense_base) return names;
  for (const auto& [layer, base] : source.layers) {
    for (const StoredProjection& projection : base.experts[0]) {
      for (const Part part : {kWeightPart, kScalePart, kBiasPart}) {
        const StoredPart* stored = part_of(projection, part);
        if (stored != nullptr) names.insert(stored->tensor.name);
      }
    }
  }
  return names;
}

class Differ {
 public:
  Differ(const SplitOptions& options, const CutSource& child, const CutSource& parent)
      : options_(options), child_(child), parent_(parent) {}

  Result<SplitReport> run() {
    CHIMERA_RETURN_IF_ERROR(check_same_model());
    CHIMERA_RETURN_IF_ERROR(check_same_backbone());
    CHIMERA_RETURN_IF_ERROR(find_changes());
    CHIMERA_RETURN_IF_ERROR(assign());
    const Result<std::string> fingerprint = backbone_fingerprint(parent_.checkpoint, "");
    if (!fingerprint.ok()) return fingerprint.status();
    SplitReport report;
    report.fingerprint = *fingerprint;
    report.experts_left = parent_.config.num_experts;
    report.num_experts_per_tok = parent_.config.num_experts_per_tok;
    OutputSet outputs;
    for (ModuleCut& cut : cuts_) {
      report.module_dirs.push_back(options_.modules_out + "/" + cut.name);
      const Result<std::string> dir = outputs.create(report.module_dirs.back());
      if (!dir.ok()) return dir.status();
      cut.fingerprint = *fingerprint;
      CHIMERA_RETURN_IF_ERROR(write_cut_module(*dir, cut, child_));
    }
    CHIMERA_RETURN_IF_ERROR(outputs.commit());
    return report;
  }

 private:
  /// Equal but for the number of experts and the end tokens.
  Status check_same_model() const {
    ModelConfig child = child_.config;
    const ModelConfig& parent = parent_.config;
    child.eos_token_ids = parent.eos_token_ids;
    child.num_experts = parent.num_experts;
    child.num_experts_per_tok = parent.num_experts_per_tok;
    if (child == parent && child_.config.num_experts >= parent.num_experts) return {};
    return {Code::kFailedPrecondition,
            fmt::format(
                "{}: found another model than in {} (expected a fine-tune of it; config.json "
                "differs in {})",
                options_.checkpoint_dir, options_.parent_dir,
                different_keys(child_.checkpoint.config_json(), parent_.checkpoint.config_json())),
            "Give the checkpoint that the fine-tune started from."};
  }

  Status check_same_backbone() const {
    const std::set<std::string> experts = dense_expert_names(parent_);
    const auto outside = [&](const CutSource& source) {
      std::set<std::string> names;
      for (const std::string& name : source.checkpoint.names()) {
        if (!is_cut_tensor(source.config, name) && experts.count(name) == 0) names.insert(name);
      }
      return names;
    };
    const std::set<std::string> child = outside(child_);
    const std::set<std::string> parent = outside(parent_);
    std::vector<std::string> different;
    std::set_symmetric_difference(child.begin(), child.end(), parent.begin(), parent.end(),
                                  std::back_inserter(different));
    for (const std::string& name : parent) {
      const TensorView* other = child_.checkpoint.find(name);
      const TensorView& own = *parent_.checkpoint.find(name);
      if (other == nullptr || child.count(name) == 0) continue;
      if (other->shape != own.shape || !same_bytes(*other, own)) different.push_back(name);
    }
    if (different.empty()) return {};
    const size_t count = different.size();
    different.resize(std::min(count, kMostNamed));
    return {Code::kFailedPrecondition,
            fmt::format("{}: found {} tensors outside the experts that differ from the parent's, "
                        "such as {} (expected none)",
                        options_.checkpoint_dir, count, fmt::join(different, ", ")),
            "A module holds experts and gate rows only; a fine-tune that changed more needs a "
            "backbone of its own."};
  }

  Status find_changes() {
    const int64_t shared = parent_.config.num_experts;
    const bool grown = child_.config.num_experts > shared;
    for (const auto& [layer, base] : child_.layers) {
      const BaseLayer& before = parent_.layers.at(layer);
      for (int64_t e = 0; e < shared; ++e) {
        const auto at = static_cast<size_t>(e);
        const bool gate = !same_gate(base, before, e);
        if (!gate && same_expert(base.experts[at], before.experts[at])) continue;
        if (grown) {
          return {
              Code::kFailedPrecondition,
              fmt::format("{}: found {} experts more than in the parent, and a changed expert "
                          "{} in layer {} (expected either)",
                          options_.checkpoint_dir, child_.config.num_experts - shared, e, layer),
              "A module either appends experts or replaces some."};
        }
        changed_[layer].push_back(e);
        if (gate) gate_layers_.insert(layer);
      }
      for (int64_t e = shared; e < child_.config.num_experts; ++e) changed_[layer].push_back(e);
    }
    if (changed_.empty()) {
      return {Code::kFailedPrecondition,
              fmt::format("{}: found the very experts of {} (expected a difference)",
                          options_.checkpoint_dir, options_.parent_dir)};
    }
    attach_ = grown ? Attach::kAppend : Attach::kReplace;
    return {};
  }

  /// Hands the changes to the modules: all to one without slots, else those inside its slots.
  Status assign() {
    if (options_.modules.empty()) {
      return {Code::kInvalidArgument, "found no modules (expected at least one)"};
    }
    std::vector<Slots> wanted;
    for (SplitModule module : options_.modules) {
      const bool everything = module.slots.empty();
      if (everything && options_.modules.size() > 1) {
        return {Code::kInvalidArgument,
                fmt::format("module {}: found no slots beside other modules (expected NAME=SLOTS)",
                            module.name)};
      }
      if (everything) module.slots.insert(changed_.begin(), changed_.end());
      Result<Slots> slots = resolve_slots(module, child_.config);
      if (!slots.ok()) return slots.status();
      wanted.push_back(std::move(*slots));
    }
    CHIMERA_RETURN_IF_ERROR(check_disjoint(options_.modules, wanted));
    size_t assigned = 0;
    for (size_t m = 0; m < wanted.size(); ++m) {
      ModuleCut cut{options_.modules[m].name, attach_, {}, {}, "", options_.license, {}};
      if (attach_ == Attach::kAppend) cut.original_top_k = child_.config.num_experts_per_tok;
      for (const auto& [layer, list] : wanted[m]) {
        const auto changed = changed_.find(layer);
        if (changed == changed_.end()) continue;
        std::vector<int64_t> both;
        std::set_intersection(list.begin(), list.end(), changed->second.begin(),
                              changed->second.end(), std::back_inserter(both));
        assigned += both.size();
        if (gate_layers_.count(layer) != 0) cut.gate_layers.insert(layer);
        if (!both.empty()) cut.slots.emplace(layer, std::move(both));
      }
      if (cut.slots.empty()) {
        return {Code::kFailedPrecondition,
                fmt::format("module {}: found no changed expert among its slots (expected some)",
                            cut.name)};
      }
      cuts_.push_back(std::move(cut));
    }
    return check_all_assigned(assigned);
  }

  Status check_all_assigned(size_t assigned) const {
    size_t total = 0;
    for (const auto& [layer, list] : changed_) total += list.size();
    if (assigned == total) return {};
    return {Code::kInvalidArgument,
            fmt::format("found {} changed experts in no module (expected every one of {} in one)",
                        total - assigned, total),
            "Give one module without slots, or slots that cover all changes."};
  }

  const SplitOptions& options_;
  const CutSource& child_;
  const CutSource& parent_;
  Slots changed_;
  std::set<int64_t> gate_layers_;  // with a changed gate row
  Attach attach_ = Attach::kReplace;
  std::vector<ModuleCut> cuts_;
};

}  // namespace

Result<SplitReport> split_difference(const SplitOptions& options) {
  const Result<Checkpoint> child = Checkpoint::open(options.checkpoint_dir, Residency::kMapped);
  if (!child.ok()) return child.status();
  const Result<Checkpoint> parent = Checkpoint::open(options.parent_dir, Residency::kMapped);
  if (!parent.ok()) return parent.status();
  const Result<CutSource> changed = CutSource::read(*child);
  if (!changed.ok()) return changed.status();
  const Result<CutSource> original = CutSource::read(*parent);
  if (!original.ok()) return original.status();
  return Differ(options, *changed, *original).run();
}

}  // namespace chimera
