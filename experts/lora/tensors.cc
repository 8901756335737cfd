#include "experts/lora/tensors.h"

#include <fmt/format.h>

#include <iterator>
#include <map>
#include <set>
#include <tuple>
#include <utility>

#include "base/fields/problems.h"
#include "base/quote.h"
#include "experts/module/tensors.h"

namespace chimera {
namespace {

constexpr std::string_view kPrefix = "base_model.model.";
constexpr std::string_view kDown = ".lora_A.weight";
constexpr std::string_view kUp = ".lora_B.weight";
// As PEFT writes it, and as its module has it.
constexpr std::string_view kMagnitudes[] = {".lora_magnitude_vector",
                                            ".lora_magnitude_vector.weight"};

/// What else PEFT writes, and why it is not taken.
struct OtherTensor {
  std::string_view part;
  std::string_view why;
};
constexpr std::array kOthers = {
    OtherTensor{".lora_embedding_", "no adapters of embeddings"},
    OtherTensor{".lora_magnitude_vector", "magnitudes of DoRA beside use_dora: true alone"},
    OtherTensor{".lora_B.bias", "no lora_bias"},
    OtherTensor{".modules_to_save.", "no modules_to_save"},
};

struct Pair {
  const TensorView* a = nullptr;
  const TensorView* b = nullptr;
  const TensorView* magnitude = nullptr;
};

class Sorter {
 public:
  Sorter(const LoraConfig& adapter, const ModelConfig& config, TensorDepth depth,
         const std::string& label)
      : adapter_(adapter),
        config_(config),
        depth_(depth),
        targets_(adapter_targets(config)),
        problems_(label, kMostMisfits),
        hint_(adapter.base_model.empty()
                  ? "Was it trained for this backbone?"
                  : "It was trained for " + quote(adapter.base_model) + ".") {}

  Result<std::vector<StoredChange>> sort(const SafetensorsFile& file) {
    for (const TensorView& tensor : file.tensors()) place(tensor);
    for (const auto& [name, pair] : pairs_) take(name, pair);
    find_missing();
    if (!problems_.empty()) return problems_.status();
    if (changes_.empty()) {
      return Status(
          Code::kInvalidArgument,
          fmt::format("{}: found no tensors (expected pairs of lora_A and lora_B)", file.path()));
    }
    return std::move(changes_);
  }

 private:
  void note(Code code, std::string text) { problems_.add({}, {std::move(text), hint_, code}); }

  void place(const TensorView& tensor) {
    std::string_view name = tensor.name;
    if (!name.starts_with(kPrefix)) return unknown(tensor);
    name.remove_prefix(kPrefix.size());  // first: the two may share a dot
    for (const std::string_view suffix : kMagnitudes) {
      if (!adapter_.dora || !name.ends_with(suffix)) continue;
      name.remove_suffix(suffix.size());
      if (const TensorView* other = std::exchange(pairs_[std::string(name)].magnitude, &tensor))
        note(Code::kFailedPrecondition, fmt::format("found {} beside {} (expected one)",
                                                    quote(tensor.name, 200), quote(other->name)));
      return;
    }
    const bool down = name.ends_with(kDown);
    if (!down && !name.ends_with(kUp)) return unknown(tensor);
    name.remove_suffix(kDown.size());
    Pair& pair = pairs_[std::string(name)];
    (down ? pair.a : pair.b) = &tensor;
  }

  void unknown(const TensorView& tensor) {
    for (const OtherTensor& other : kOthers) {
      if (tensor.name.find(other.part) == std::string::npos) continue;
      return note(Code::kUnimplemented,
                  fmt::format("found {} (supported: {})", quote(tensor.name, 200), other.why));
    }
    note(Code::kFailedPrecondition, fmt::format("found {} (expected {}PART{} or {})",
                                                quote(tensor.name, 200), kPrefix, kDown, kUp));
  }

  void take(const std::string& name, const Pair& pair) {
    const std::string shown = quote(name, 200);
    if (pair.a == nullptr && pair.b == nullptr) {
      return note(Code::kFailedPrecondition,
                  fmt::format("found {} without lora_A and lora_B (expected all three)",
                              quote(pair.magnitude->name, 200)));
    }
    if (pair.a == nullptr || pair.b == nullptr) {
      const TensorView& half = pair.a == nullptr ? *pair.b : *pair.a;
      return note(Code::kFailedPrecondition,
                  fmt::format("found {} without {} (expected both)", quote(half.name, 200),
                              pair.a == nullptr ? "lora_A" : "lora_B"));
    }
    const std::string part = plain_part_name(name);
    const auto target = targets_.find(part);
    if (target == targets_.end()) {
      if (const auto stack = find_stack(part, config_)) return take_stack(*stack, name, pair);
      return note(Code::kFailedPrecondition,
                  fmt::format("found a change of {} (expected one of the attention projections, "
                              "feed-forwards and experts of this {})",
                              shown, config_.model_type));
    }
    const AdapterTarget& at = target->second;
    if (!adapter_.takes(name, at.layer, at.expert)) {
      return note(
          Code::kFailedPrecondition,
          fmt::format("found a change of {} (expected parts of target_modules alone)", shown));
    }
    if (!is_first(at, name)) return;
    const int64_t rank = adapter_.rank_of(name);
    const size_t before = noted_;
    check(*pair.a, {rank, at.inputs});
    check(*pair.b, {at.outputs, rank});
    check_magnitude(shown, at, pair);
    if (noted_ != before) return;
    seen_.insert(target->first);
    if (at.expert >= 0) expert_layers_.insert(at.layer);
    changes_.push_back({at, *pair.a, *pair.b, adapter_.scale_of(name)});
    if (pair.magnitude != nullptr) changes_.back().magnitude = *pair.magnitude;
  }

  void check_magnitude(const std::string& shown, const AdapterTarget& at, const Pair& pair) {
    if (!adapter_.dora) return;
    if (pair.magnitude == nullptr) {
      return bad(Code::kFailedPrecondition,
                 fmt::format("found a change of {} without lora_magnitude_vector (expected one, as "
                             "use_dora says)",
                             shown));
    }
    const bool cut_up = at.expert < 0 && at.role == TensorRole::kKvB;
    const bool biased = at.expert >= 0 && config_.expert_kind == ExpertKind::kClampedSwiGlu;
    if (cut_up || biased) {
      return bad(Code::kUnimplemented,
                 fmt::format("found use_dora for {} (supported: for products that are kept whole, "
                             "and experts without biases)",
                             shown));
    }
    check(*pair.magnitude, {at.outputs});
  }

  /// Whether no other pair changes this weight: a stack and a pair of one of its experts would
  /// both, and so would two spellings of a name (plain_part_name).
  bool is_first(const AdapterTarget& at, const std::string& name) {
    const auto [found, added] =
        changed_by_.try_emplace({at.layer, at.role, at.expert, at.projection}, name);
    if (!added) {
      note(Code::kFailedPrecondition,
           fmt::format("found two changes of a weight, {} and {}{} (expected one)",
                       quote(found->second, 200), quote(name, 200),
                       at.expert < 0 ? "" : fmt::format(", of expert {}", at.expert)));
    }
    return added;
  }

  void take_stack(const ExpertStack& stack, const std::string& name, const Pair& pair) {
    const size_t before = noted_;
    if (adapter_.dora) {
      return bad(
          Code::kUnimplemented,
          fmt::format("found a stack of experts, {}, with use_dora (supported: experts one by "
                      "one)",
                      quote(name, 200)));
    }
    check_numbers(*pair.a);
    check_numbers(*pair.b);
    if (noted_ != before) return;
    auto changes = split_stack(stack, *pair.a, *pair.b, adapter_, config_);
    if (!changes.ok()) return note(changes.status().code(), changes.status().message());
    for (const StoredChange& change : changes->changes) {
      if (!is_first(change.target, name)) return;  // one line for a stack
    }
    seen_.insert(changes->stack);
    std::move(changes->changes.begin(), changes->changes.end(), std::back_inserter(changes_));
  }

  void bad(Code code, std::string text) {
    ++noted_;
    note(code, std::move(text));
  }

  void check(const TensorView& tensor, const std::vector<int64_t>& shape) {
    if (tensor.shape != shape) {
      return bad(Code::kFailedPrecondition,
                 fmt::format("{}: found {} (expected {})", quote(tensor.name, 200),
                             shape_string(tensor.shape), shape_string(shape)));
    }
    check_numbers(tensor);
  }

  void check_numbers(const TensorView& tensor) {
    if (tensor.dtype != DType::kF32 && tensor.dtype != DType::kF16 &&
        tensor.dtype != DType::kBF16) {
      return bad(Code::kUnimplemented,
                 fmt::format("{}: found {} (expected F32, F16 or BF16)", quote(tensor.name, 200),
                             dtype_name(tensor.dtype)));
    }
    if (depth_ == TensorDepth::kHeader) return;
    if (const Status finite = check_finite(tensor); !finite.ok())
      bad(finite.code(), finite.message());
  }

  /// What the configuration speaks of and the file has not. With fused experts, as transformers 5
  /// trains them, a list like "gate_proj" does not mean those of experts.
  void find_missing() {
    if (!problems_.empty()) return;
    for (const auto& [name, target] : targets_) {
      if (seen_.contains(name)) continue;
      if (target.expert >= 0 && !config_.dense_base && !expert_layers_.contains(target.layer))
        continue;
      // Before 2026 PEFT counted experts where layers were meant: nothing tells which was.
      if (target.expert >= 0 && adapter_.layers) continue;
      if (!adapter_.takes(name, target.layer, target.expert)) continue;
      note(Code::kFailedPrecondition,
           fmt::format("found no change of {} (expected one, as target_modules says)", name));
    }
    for (const std::string& stack : parameter_names(config_)) {
      if (seen_.contains(stack) || !adapter_.takes_parameter(stack)) continue;
      note(Code::kFailedPrecondition,
           fmt::format("found no change of {} (expected one, as target_parameters says)", stack));
    }
  }

  const LoraConfig& adapter_;
  const ModelConfig& config_;
  const TensorDepth depth_;
  const AdapterTargets targets_;
  Problems problems_;
  const std::string hint_;
  size_t noted_ = 0;
  std::map<std::string, Pair> pairs_;
  std::set<std::string, std::less<>> seen_;
  /// By layer, role, expert and projection: the pair that changes it.
  std::map<std::tuple<int64_t, TensorRole, int64_t, size_t>, std::string> changed_by_;
  std::set<int64_t> expert_layers_;
  std::vector<StoredChange> changes_;
};

}  // namespace

Result<std::vector<StoredChange>> sort_adapter_tensors(const SafetensorsFile& file,
                                                       const LoraConfig& adapter,
                                                       const ModelConfig& config, TensorDepth depth,
                                                       const std::string& label) {
  return Sorter(adapter, config, depth, label).sort(file);
}

}  // namespace chimera
