#include "experts/lora/stacks.h"

#include <fmt/format.h>

#include <array>
#include <cstring>
#include <utility>

#include "base/quote.h"
#include "compute/tensor/memory.h"
#include "experts/module/base_tensors.h"

namespace chimera {
namespace {

using StackPart = ExpertStack::Part;

struct Named {
  std::string_view last;
  StackPart part;
};
constexpr std::array kNamed = {
    Named{".base_layer", StackPart::kFlat}, Named{".gate_up_proj", StackPart::kGateUp},
    Named{".gate_proj", StackPart::kGate},  Named{".up_proj", StackPart::kUp},
    Named{".down_proj", StackPart::kDown},  Named{".w1", StackPart::kGate},
    Named{".w3", StackPart::kUp},           Named{".w2", StackPart::kDown},
};

/// "mlp.experts": where the family keeps its experts, one by one or in stacks.
std::vector<std::string> modules_of(const ModelConfig& config) {
  const TensorNames& names = tensor_names(config);
  std::vector<std::string> out;
  if (config.dense_base) return out;
  if (const size_t at = names.expert_prefix.find(".{e}."); at != std::string::npos)
    out.push_back(names.expert_prefix.substr(0, at));
  if (const size_t at = names.fused_gate_up.rfind('.'); at != std::string::npos)
    out.push_back(names.fused_gate_up.substr(0, at));
  return out;
}

std::string without_prefix(const ModelConfig& config, std::string name) {
  if (name.starts_with(config.tensor_prefix)) name.erase(0, config.tensor_prefix.size());
  return name;
}

std::string_view last_name(StackPart part) {
  switch (part) {
    case StackPart::kGateUp:
      return ".gate_up_proj";
    case StackPart::kGate:
      return ".gate_proj";
    case StackPart::kUp:
      return ".up_proj";
    case StackPart::kDown:
    case StackPart::kFlat:
      return ".down_proj";
  }
  return "";
}

/// Numbers of a tensor at fixed steps, in elements.
struct Picked {
  int64_t first = 0, row_step = 0, col_step = 1;
  bool dense(int64_t cols) const { return col_step == 1 && row_step == cols; }
};

TensorView pick(const TensorView& from, const Picked& at, int64_t rows, int64_t cols) {
  const auto size = static_cast<size_t>(dtype_bits(from.dtype) / 8);
  if (at.dense(cols)) {
    TensorView out = from;
    out.shape = {rows, cols};
    out.bytes = from.bytes.subspan(static_cast<size_t>(at.first) * size,
                                   static_cast<size_t>(rows * cols) * size);
    return out;
  }
  std::byte* to = nullptr;
  TensorView out = make_tensor(from.name, from.dtype, {rows, cols}, &to);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c, to += size) {
      const int64_t i = at.first + r * at.row_step + c * at.col_step;
      std::memcpy(to, from.bytes.data() + static_cast<size_t>(i) * size, size);
    }
  }
  return out;
}

/// Where the numbers of an expert stand in both tensors.
struct Layout {
  StackPart part = StackPart::kGateUp;
  bool flat = false, swapped = false;
  int64_t experts = 0, rank = 0;
  int64_t inputs = 0, outputs = 0;          // of the whole part
  bool shared_a = false, shared_b = false;  // not flat
};

class Splitter {
 public:
  Splitter(const Layout& layout, const TensorView& a, const TensorView& b, double scale)
      : l_(layout), a_(a), b_(b), scale_(scale) {}

  /// `first` and `step`: which outputs of the part are those of `projection`.
  void add(int64_t layer, int64_t expert, size_t projection, int64_t first, int64_t step,
           int64_t outputs, std::vector<StoredChange>& out) const {
    StoredChange change;
    change.target = {.layer = layer,
                     .expert = expert,
                     .projection = projection,
                     .outputs = outputs,
                     .inputs = l_.inputs};
    change.scale = scale_;
    const Picked down = reduction(expert);
    change.copied = !down.dense(l_.inputs);
    const bool turned = l_.flat && l_.swapped;
    change.a = pick(turned ? b_ : a_, down, l_.rank, l_.inputs);
    change.b = pick(turned ? a_ : b_, expansion(expert, first, step), outputs, l_.rank);
    out.push_back(std::move(change));
  }

 private:
  Picked reduction(int64_t e) const {
    if (!l_.flat) return {(l_.shared_a ? 0 : e) * l_.rank * l_.inputs, l_.inputs, 1};
    if (l_.swapped) return {e, l_.experts, l_.experts * l_.rank};
    return {e * l_.rank * l_.inputs, l_.inputs, 1};
  }
  Picked expansion(int64_t e, int64_t first, int64_t step) const {
    if (!l_.flat)
      return {(l_.shared_b ? 0 : e) * l_.outputs * l_.rank + first * l_.rank, step * l_.rank, 1};
    if (l_.swapped) return {e * l_.rank * l_.outputs + first, step, l_.outputs};
    const int64_t wide = l_.experts * l_.rank;
    return {first * wide + e, step * wide, l_.experts};
  }

  const Layout& l_;
  const TensorView& a_;
  const TensorView& b_;
  const double scale_;
};

int64_t inputs_of(StackPart part, const ModelConfig& c) {
  return part == StackPart::kDown ? c.intermediate_size : c.hidden_size;
}
int64_t outputs_of(StackPart part, const ModelConfig& c) {
  if (part == StackPart::kDown) return c.hidden_size;
  return part == StackPart::kGateUp ? 2 * c.intermediate_size : c.intermediate_size;
}

Status misfit(const TensorView& a, const TensorView& b, std::string_view expected) {
  return {Code::kFailedPrecondition,
          fmt::format("{}: found {} with {} (expected {})", quote(a.name, 200),
                      shape_string(a.shape), shape_string(b.shape), expected)};
}

Result<Layout> flat_layout(const ExpertStack& stack, const TensorView& a, const TensorView& b,
                           const LoraConfig& adapter, const ModelConfig& c) {
  std::string expected;
  bool named = false;
  for (const StackPart part : {StackPart::kGateUp, StackPart::kDown}) {
    const std::string name = stack.module + std::string(last_name(part));
    if (!adapter.takes_parameter(name)) continue;
    named = true;
    Layout l{.part = part,
             .flat = true,
             .experts = c.num_experts,
             .rank = adapter.rank_of(name),
             .inputs = inputs_of(part, c),
             .outputs = outputs_of(part, c)};
    const int64_t wide = l.experts * l.rank;
    using Shape = std::vector<int64_t>;
    const bool fits = a.shape == Shape{wide, l.inputs} && b.shape == Shape{l.outputs, wide};
    const bool turned = a.shape == Shape{wide, l.outputs} && b.shape == Shape{l.inputs, wide};
    if (fits && turned && tensor_names(c).fused_layout == FusedLayout::kOutIn) {
      if (!adapter.swaps_stacks) {
        return Status(
            Code::kUnimplemented,
            fmt::format("{}: found {}, which fits both ways round (expected peft_version, "
                        "which tells)",
                        quote(a.name, 200), shape_string(a.shape)));
      }
      l.swapped = *adapter.swaps_stacks;
    } else {
      l.swapped = turned && !fits;
    }
    if (fits || turned) return l;
    expected +=
        fmt::format("{}{} with {}", expected.empty() ? "" : ", or ",
                    shape_string(Shape{wide, l.inputs}), shape_string(Shape{l.outputs, wide}));
  }
  if (named) return misfit(a, b, expected);
  return Status(Code::kFailedPrecondition,
                fmt::format("found a change of the experts of {} (expected target_parameters to "
                            "name them)",
                            quote(stack.module, 200)));
}

Result<Layout> stacked_layout(const ExpertStack& stack, const TensorView& a, const TensorView& b,
                              const LoraConfig& adapter, const ModelConfig& c) {
  Layout l{.part = stack.part,
           .experts = c.num_experts,
           .rank = adapter.rank_of(stack.module + std::string(last_name(stack.part))),
           .inputs = inputs_of(stack.part, c),
           .outputs = outputs_of(stack.part, c)};
  const auto fits = [&](const TensorView& t, int64_t rows, int64_t cols) {
    return t.shape.size() == 3 && (t.shape[0] == 1 || t.shape[0] == l.experts) &&
           t.shape[1] == rows && t.shape[2] == cols;
  };
  if (!fits(a, l.rank, l.inputs) || !fits(b, l.outputs, l.rank)) {
    return misfit(a, b,
                  fmt::format("[{0} or 1, {1}, {2}] with [{0} or 1, {3}, {1}]", l.experts, l.rank,
                              l.inputs, l.outputs));
  }
  l.shared_a = a.shape[0] == 1;
  l.shared_b = b.shape[0] == 1;
  return l;
}

}  // namespace

std::optional<ExpertStack> find_stack(std::string_view name, const ModelConfig& config) {
  for (const std::string& module : modules_of(config)) {
    for (const int64_t layer : moe_layers(config)) {
      const std::string at = without_prefix(config, layer_tensor(config, layer, module));
      if (!name.starts_with(at)) continue;
      const std::string_view last = name.substr(at.size());
      if (last.empty()) return ExpertStack{layer, at, StackPart::kFlat};
      for (const Named& one : kNamed) {
        if (last == one.last) return ExpertStack{layer, at, one.part};
      }
    }
  }
  return std::nullopt;
}

std::vector<std::string> parameter_names(const ModelConfig& config) {
  std::vector<std::string> out;
  const TensorNames& names = tensor_names(config);
  if (config.dense_base || names.fused_gate_up.empty()) return out;
  for (const int64_t layer : moe_layers(config)) {
    for (const std::string* tail : {&names.fused_gate_up, &names.fused_down})
      out.push_back(without_prefix(config, layer_tensor(config, layer, *tail)));
  }
  return out;
}

Result<SplitStack> split_stack(const ExpertStack& stack, const TensorView& a, const TensorView& b,
                               const LoraConfig& adapter, const ModelConfig& config) {
  const Result<Layout> layout = stack.part == StackPart::kFlat
                                    ? flat_layout(stack, a, b, adapter, config)
                                    : stacked_layout(stack, a, b, adapter, config);
  if (!layout.ok()) return layout.status();
  SplitStack out;
  out.stack = stack.module + std::string(last_name(layout->part));
  const Splitter splitter(*layout, a, b, adapter.scale_of(out.stack));
  const int64_t width = config.intermediate_size;
  const bool interleaved = tensor_names(config).fused_layout == FusedLayout::kInOutInterleaved;
  for (int64_t e = 0; e < config.num_experts; ++e) {
    switch (layout->part) {
      case StackPart::kGateUp:
        splitter.add(stack.layer, e, 0, 0, interleaved ? 2 : 1, width, out.changes);
        splitter.add(stack.layer, e, 1, interleaved ? 1 : width, interleaved ? 2 : 1, width,
                     out.changes);
        break;
      case StackPart::kGate:
        splitter.add(stack.layer, e, 0, 0, 1, width, out.changes);
        break;
      case StackPart::kUp:
        splitter.add(stack.layer, e, 1, 0, 1, width, out.changes);
        break;
      case StackPart::kDown:
      case StackPart::kFlat:
        splitter.add(stack.layer, e, 2, 0, 1, config.hidden_size, out.changes);
        break;
    }
  }
  return out;
}

}  // namespace chimera
