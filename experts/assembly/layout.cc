#include "experts/assembly/layout.h"

#include <fmt/format.h>

#include <map>
#include <set>

#include "experts/module/base_tensors.h"

namespace chimera {
namespace {

class OutputPlanner {
 public:
  explicit OutputPlanner(AssemblyPlan& plan) : plan_(plan) {
    for (size_t i = 0; i < plan.tensors.size(); ++i) by_name_[plan.tensors[i].traits.name] = i;
  }

  /// A checkpoint, or a module assembled from modules.
  void add_all() {
    std::set<int64_t> stacked;
    for (size_t i = 0; i < plan_.tensors.size(); ++i) {
      const TensorTraits& traits = plan_.tensors[i].traits;
      const bool in_stack =
          traits.slot >= 0 && traits.stored != traits.name && !plan_.parents[0]->is_module();
      if (!in_stack) {
        add_whole(i, plan_.tensors[i].base().quantised() ? traits.name : traits.stored, -1);
      } else if (stacked.insert(traits.layer).second) {
        add_stacks(traits.layer, plan_.tensors[i].base().quantised());
      }
    }
  }

  void add_experts() {
    const ModelConfig& config = plan_.parents[0]->config();
    int64_t group = 0;
    for (const int64_t layer : moe_layers(config)) {
      for (int64_t slot = 0; slot < config.num_experts; ++slot, ++group) {
        add_expert(layer, slot, group);
      }
    }
  }

  void cut(uint64_t shard_bytes) {
    uint64_t used = 0;
    for (size_t i = 0; i < plan_.outputs.size(); ++i) {
      const uint64_t bytes = plan_.outputs[i].bytes;
      if (plan_.shards.empty() || (used > 0 && used + bytes > shard_bytes)) {
        plan_.shards.emplace_back();
        used = 0;
      }
      plan_.shards.back().push_back(i);
      used += bytes;
    }
  }

 private:
  void add_whole(size_t tensor, std::string name, int64_t group) {
    const PlannedTensor& planned = plan_.tensors[tensor];
    OutputTensor out;
    out.name = std::move(name);
    out.dtype = planned.dtype;
    out.shape = planned.base().shape();
    const int64_t rows = planned.base().rows(), cols = planned.base().cols();
    out.bytes = static_cast<uint64_t>(rows * cols) * unit_bytes(out.dtype);
    out.slices = {{0, out.bytes, {{tensor, {rows, cols, 0, cols, 1}}}}};
    out.group = group;
    plan_.outputs.push_back(std::move(out));
  }

  std::optional<size_t> expert_part(int64_t layer, int64_t slot, size_t projection,
                                    Part part) const {
    const auto at = by_name_.find(single_tensor_name(plan_.parents[0]->config(), layer, slot,
                                                     projection, Encoding::kPlain, part));
    if (at == by_name_.end()) return std::nullopt;
    return at->second;
  }

  void add_stacks(int64_t layer, bool quantised) {
    const Parent& base = *plan_.parents[0];
    const StackLayout layout = quantised ? plain_stack_layout(base.config())
                                         : *stack_layout(base.checkpoint(), base.config(), layer);
    std::vector<OutputTensor> stacks;
    for (const StackSpec& spec : layout.stacks) {
      OutputTensor stack;
      stack.name = layer_tensor(base.config(), layer, spec.tail);
      stack.shape = spec.shape;
      stack.shape.insert(stack.shape.begin(), base.config().num_experts);
      stack.slices.resize(static_cast<size_t>(base.config().num_experts));
      stacks.push_back(std::move(stack));
    }
    for (int64_t slot = 0; slot < base.config().num_experts; ++slot) {
      for (size_t p = 0; p < kProjections.size(); ++p) {
        for (const Part part : {kWeightPart, kBiasPart}) {
          const auto& place = layout.places[p][part];
          if (!place) continue;
          const size_t tensor = *expert_part(layer, slot, p, part);
          OutputTensor& stack = stacks[place->stack];
          stack.dtype = plan_.tensors[tensor].dtype;
          Strides at = place->at;
          // A vector is one row here.
          if (part == kBiasPart) at = {1, at.rows, at.offset, at.rows * at.row_step, at.row_step};
          stack.slices[static_cast<size_t>(slot)].pieces.push_back({tensor, at});
        }
      }
    }
    for (OutputTensor& stack : stacks) {
      int64_t elements = 1;
      for (size_t d = 1; d < stack.shape.size(); ++d) elements *= stack.shape[d];
      const uint64_t bytes = static_cast<uint64_t>(elements) * unit_bytes(stack.dtype);
      for (size_t slot = 0; slot < stack.slices.size(); ++slot) {
        stack.slices[slot].offset = slot * bytes;
        stack.slices[slot].bytes = bytes;
      }
      stack.bytes = bytes * stack.slices.size();
      plan_.outputs.push_back(std::move(stack));
    }
  }

  void add_expert(int64_t layer, int64_t slot, int64_t group) {
    bool taken = false;
    std::vector<std::pair<std::string, size_t>> parts;
    for (size_t p = 0; p < kProjections.size(); ++p) {
      for (const Part part : {kWeightPart, kBiasPart}) {
        const auto tensor = expert_part(layer, slot, p, part);
        if (!tensor) continue;
        taken = taken || !plan_.tensors[*tensor].base_only();
        parts.emplace_back(fmt::format("layers.{}.experts.{}.{}{}", layer, slot, kProjections[p],
                                       part_tail(Encoding::kPlain, part)),
                           *tensor);
      }
    }
    if (!taken) return;
    for (auto& [name, tensor] : parts) add_whole(tensor, std::move(name), group);
  }

  AssemblyPlan& plan_;
  std::map<std::string, size_t> by_name_;
};

}  // namespace

void plan_outputs(AssemblyPlan& plan, uint64_t shard_bytes) {
  OutputPlanner planner(plan);
  if (plan.only_differences()) {
    planner.add_experts();
  } else {
    planner.add_all();
  }
  planner.cut(shard_bytes);
}

}  // namespace chimera
