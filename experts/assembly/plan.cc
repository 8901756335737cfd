#include "experts/assembly/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "backbone/checkpoint/fingerprint.h"
#include "base/quote.h"
#include "experts/assembly/layout.h"
#include "experts/assembly/misfits.h"
#include "experts/module/base_tensors.h"

namespace chimera {
namespace {

/// Tensors of a parent by the names of the base.
using ByName = std::map<std::string, const ParentTensor*>;

/// Projection and part that "gate_proj.weight" names.
std::optional<std::pair<size_t, Part>> expert_tail(std::string_view tail) {
  for (size_t p = 0; p < kProjections.size(); ++p) {
    if (!tail.starts_with(kProjections[p])) continue;
    const std::string_view rest = tail.substr(kProjections[p].size());
    if (rest == ".weight") return std::pair{p, kWeightPart};
    if (rest == ".bias") return std::pair{p, kBiasPart};
  }
  return std::nullopt;
}

class Planner {
 public:
  Planner(AssemblyPlan& plan, uint64_t shard_bytes) : plan_(plan), shard_bytes_(shard_bytes) {}

  Status open() {
    for (size_t i = 0; i < plan_.recipe.parents.size(); ++i) {
      Result<Parent> parent = Parent::open(plan_.recipe.parent_path(i));
      if (!parent.ok()) return parent.status();
      plan_.parents.push_back(std::make_shared<const Parent>(std::move(*parent)));
    }
    return check_kinds();
  }

  Status run() {
    const Result<RuleMatcher> matcher = RuleMatcher::create(plan_.recipe);
    if (!matcher.ok()) return matcher.status();
    for (size_t i = 1; i < plan_.parents.size(); ++i) {
      CHIMERA_RETURN_IF_ERROR(index_parent(*plan_.parents[i]));
    }
    for (const std::string& name : base().order()) plan_tensor(*base().find(name), *matcher);
    find_extra();
    if (!misfits_.empty()) {
      return misfits_.status(Code::kFailedPrecondition,
                             plan_.recipe.label + ": the parents do not fit together",
                             "Parents have the tensors of the base, name by name.");
    }
    CHIMERA_RETURN_IF_ERROR(check_module_output());
    plan_outputs(plan_, shard_bytes_);
    note_unused_rules();
    return {};
  }

 private:
  const Parent& base() const { return *plan_.parents[0]; }

  /// What a parent may be, by what the base is.
  Status check_kinds() {
    if (base().is_module() && plan_.recipe.module.empty()) {
      return {Code::kInvalidArgument,
              plan_.recipe.label + ": found no output.module (expected one: the base is a module)"};
    }
    std::string fingerprint;
    for (size_t i = 1; i < plan_.parents.size(); ++i) {
      const Parent& parent = *plan_.parents[i];
      if (base().is_module()) {
        CHIMERA_RETURN_IF_ERROR(check_same_module(parent));
      } else if (!parent.is_module()) {
        check_same_model(parent);
      } else {
        if (fingerprint.empty()) {
          Result<std::string> found = backbone_fingerprint(base().checkpoint(), "");
          if (!found.ok()) return found.status();
          fingerprint = std::move(*found);
        }
        check_module_parent(parent, fingerprint);
      }
    }
    return {};
  }

  Status check_same_module(const Parent& parent) {
    if (!parent.is_module()) {
      return {Code::kFailedPrecondition,
              parent.path() + ": found a checkpoint (expected a module, as the base is)"};
    }
    const Manifest& own = base().manifest();
    const Manifest& other = parent.manifest();
    if (other.attach != own.attach) {
      misfits_.add(fmt::format("{}: found attach {} (expected {}, as the base)", parent.path(),
                               kAttachNames.name(other.attach), kAttachNames.name(own.attach)));
    }
    if (other.backbone_fingerprint != own.backbone_fingerprint) {
      misfits_.add(fmt::format("{}: found a module of another backbone, {} (expected {})",
                               parent.path(), other.backbone_fingerprint,
                               own.backbone_fingerprint));
    }
    return {};
  }

  void check_same_model(const Parent& parent) {
    const ModelConfig& own = base().config();
    ModelConfig other = parent.config();
    if (other.model_type != own.model_type) {
      misfits_.add(fmt::format("{}: found a model of type {} (expected {})", parent.path(),
                               other.model_type, own.model_type));
      return;
    }
    other.eos_token_ids = own.eos_token_ids;
    other.quant_method = own.quant_method;
    if (other == own) return;
    plan_.warnings.push_back(parent.path() +
                             ": its config.json asks for other numbers than the base's, which the "
                             "output has");
  }

  void check_module_parent(const Parent& parent, const std::string& fingerprint) {
    const Manifest& manifest = parent.manifest();
    if (manifest.attach != Attach::kReplace) {
      misfits_.add(parent.path() +
                   ": found a module that appends experts (expected one that replaces some)");
    }
    if (manifest.backbone_fingerprint != fingerprint) {
      misfits_.add(fmt::format("{}: found a module of another backbone, {} (expected {})",
                               parent.path(), manifest.backbone_fingerprint, fingerprint));
    }
  }

  /// Names of a module's experts become those of the base.
  Status index_parent(const Parent& parent) {
    ByName names;
    for (const auto& [name, tensor] : parent.tensors()) {
      if (!parent.is_module() || base().is_module()) {
        names.emplace(name, &tensor);
        continue;
      }
      const TensorTraits& traits = tensor.traits;
      const std::string prefix = fmt::format("layers.{}.experts.{}.", traits.layer, traits.slot);
      const auto part =
          name.starts_with(prefix) ? expert_tail(name.substr(prefix.size())) : std::nullopt;
      if (part) {
        names.emplace(single_tensor_name(base().config(), traits.layer, traits.slot, part->first,
                                         Encoding::kPlain, part->second),
                      &tensor);
      } else {
        plan_.warnings.push_back(parent.path() + ": " + name +
                                 " is left out: only experts of a module take part beside a "
                                 "checkpoint");
      }
    }
    names_.push_back(std::move(names));
    return {};
  }

  void plan_tensor(const ParentTensor& tensor, const RuleMatcher& matcher) {
    PlannedTensor out;
    out.traits = tensor.traits;
    out.parents.push_back(&tensor.data);
    out.dtype = output_dtype(tensor);
    out.rule = matcher.match(tensor.traits);
    bool fits = true;
    for (size_t i = 1; i < plan_.parents.size(); ++i) {
      const TensorData* other = match_parent(tensor, i);
      fits = fits && other != nullptr;
      if (out.rule) out.parents.push_back(other);
    }
    if (out.rule && tensor.data.opaque()) {
      misfits_.add(
          fmt::format("{}: tensor {} is stored as {} (expected numbers that can be merged)",
                      base().path(), quote(tensor.traits.name), dtype_name(tensor.data.dtype())));
    }
    if (!fits) return;
    if (out.rule) set_merge(out);
    plan_.tensors.push_back(std::move(out));
  }

  /// Null with a misfit.
  const TensorData* match_parent(const ParentTensor& tensor, size_t i) {
    const Parent& parent = *plan_.parents[i];
    const ByName& names = names_[i - 1];
    const auto at = names.find(tensor.traits.name);
    if (at == names.end()) {
      // A module stands for the backbone with some experts replaced.
      if (parent.is_module() && !base().is_module()) return &tensor.data;
      misfits_.add(fmt::format("{}: lacks tensor {} {}", parent.path(), quote(tensor.traits.name),
                               shape_string(tensor.data.shape())));
      return nullptr;
    }
    const TensorData& data = at->second->data;
    if (data.shape() != tensor.data.shape()) {
      misfits_.add(fmt::format("{}: tensor {} has shape {} (expected {})", parent.path(),
                               quote(tensor.traits.name), shape_string(data.shape()),
                               shape_string(tensor.data.shape())));
      return nullptr;
    }
    if (data.opaque() != tensor.data.opaque()) {
      misfits_.add(fmt::format("{}: tensor {} is stored as {} (expected {})", parent.path(),
                               quote(tensor.traits.name), dtype_name(data.dtype()),
                               dtype_name(tensor.data.dtype())));
      return nullptr;
    }
    return &data;
  }

  void find_extra() {
    for (size_t i = 1; i < plan_.parents.size(); ++i) {
      for (const auto& [name, tensor] : names_[i - 1]) {
        if (base().find(name) != nullptr) continue;
        misfits_.add(fmt::format("{}: has tensor {} {}, which the base lacks",
                                 plan_.parents[i]->path(), quote(name),
                                 shape_string(tensor->data.shape())));
      }
    }
  }

  DType output_dtype(const ParentTensor& tensor) const {
    const DType stored = tensor.data.dtype();
    if (tensor.data.opaque()) return stored;
    // What the router stores per expert beside its matrix is small and sensitive; released models
    // keep it in F32.
    const bool router_vector =
        tensor.traits.in(TensorSet::kGate) && tensor.data.shape().size() == 1;
    if (plan_.recipe.dtype && !router_vector) return *plan_.recipe.dtype;
    return tensor.data.quantised() ? DType::kBF16 : stored;
  }

  void set_merge(PlannedTensor& out) {
    MergeRule rule = plan_.recipe.rules[*out.rule];
    if (rule.parameters) rule.parameters->apply(out.traits.name, out.traits.layer, rule);
    out.delta = rule.delta;
    out.merge.method = rule.method;
    out.merge.lambda = rule.lambda;
    out.merge.density = rule.density;
    out.merge.consensus = rule.consensus;
    out.merge.scale = rule.scale;
    for (size_t i = 0; i < out.parents.size(); ++i) {
      out.merge.key.push_back(draw_key(plan_.recipe.seed, out.traits.name, i));
    }
    out.merge.threshold.assign(out.parents.size(), 0);
  }

  Status check_module_output() {
    if (!plan_.only_differences()) return {};
    Misfits outside;
    for (const PlannedTensor& tensor : plan_.tensors) {
      if (tensor.rule && !tensor.base_only() && tensor.traits.slot < 0)
        outside.add(tensor.traits.name);
    }
    if (outside.empty()) return {};
    return outside.status(
        Code::kFailedPrecondition,
        plan_.recipe.label +
            ": found rules that take tensors outside the experts, which a module "
            "of kind weights cannot hold",
        "Leave out output.module to write a checkpoint, or the rules that take them.");
  }

  void note_unused_rules() {
    std::vector<size_t> taken(plan_.recipe.rules.size());
    for (const PlannedTensor& tensor : plan_.tensors) {
      if (tensor.rule) ++taken[*tensor.rule];
    }
    for (size_t i = 0; i < taken.size(); ++i) {
      if (taken[i] != 0) continue;
      plan_.warnings.push_back(
          fmt::format("rule {} ({}) takes no tensor", i + 1, quote(plan_.recipe.rules[i].tensors)));
    }
  }

  AssemblyPlan& plan_;
  const uint64_t shard_bytes_;
  std::vector<ByName> names_;  // of parents 1, 2, …
  Misfits misfits_;
};

}  // namespace

bool PlannedTensor::base_only() const {
  if (!rule) return true;
  const bool alone = std::all_of(merge.lambda.begin() + 1, merge.lambda.end(),
                                 [](double value) { return value == 0; });
  const bool sums = merge.method == MergeMethod::kLinear || merge.method == MergeMethod::kSlerp;
  return alone && (!sums || merge.lambda[0] == 1);
}

bool AssemblyPlan::changes_encoding() const {
  return std::any_of(tensors.begin(), tensors.end(), [](const PlannedTensor& tensor) {
    return tensor.base().quantised() || tensor.dtype != tensor.base().dtype();
  });
}

uint64_t AssemblyPlan::output_bytes() const {
  uint64_t bytes = 0;
  for (const OutputTensor& tensor : outputs) bytes += tensor.bytes;
  return bytes;
}

uint64_t AssemblyPlan::input_bytes() const {
  uint64_t bytes = 0;
  for (const OutputTensor& output : outputs) {
    for (const OutputSlice& slice : output.slices) {
      for (const OutputPiece& piece : slice.pieces) {
        for (const TensorData* data : tensors[piece.tensor].parents) {
          bytes += data->stored_bytes(data->rows());
        }
      }
    }
  }
  return bytes;
}

Result<AssemblyPlan> plan_assembly(Recipe recipe, uint64_t shard_bytes) {
  AssemblyPlan plan;
  plan.recipe = std::move(recipe);
  plan.warnings = plan.recipe.warnings;
  Planner planner(plan, shard_bytes);
  CHIMERA_RETURN_IF_ERROR(planner.open());
  CHIMERA_RETURN_IF_ERROR(planner.run());
  if (!plan.outputs.empty()) return plan;
  return Status(Code::kFailedPrecondition,
                plan.recipe.label + ": found no tensor that a rule takes (expected some)");
}

Result<AssemblyPlan> plan_assembly(Recipe recipe,
                                   std::vector<std::shared_ptr<const Parent>> parents) {
  AssemblyPlan plan;
  plan.recipe = std::move(recipe);
  plan.parents = std::move(parents);
  CHIMERA_RETURN_IF_ERROR(Planner(plan, UINT64_MAX).run());
  return plan;
}

}  // namespace chimera
