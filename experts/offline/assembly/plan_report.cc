#include "experts/offline/assembly/plan_report.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/json/writer.h"
#include "experts/module/stored_expert.h"

namespace chimera {
namespace {

/// "model.layers.*.mlp.experts.*.up_proj.weight"
std::string pattern_of(const std::string& name) {
  std::string out;
  for (size_t i = 0; i < name.size();) {
    const bool starts = i == 0 || name[i - 1] == '.';
    size_t end = i;
    while (starts && end < name.size() && name[end] >= '0' && name[end] <= '9') ++end;
    if (end > i && (end == name.size() || name[end] == '.')) {
      out += '*';
      i = end;
    } else {
      out += name[i++];
    }
  }
  return out;
}

std::string source_of(const AssemblyPlan& plan, const PlannedTensor& tensor) {
  if (!tensor.rule) return "base";
  const MergeRule& rule = plan.recipe.rules[*tensor.rule];
  return fmt::format("rule {}: {}", *tensor.rule + 1, kMergeMethodNames.name(rule.method));
}

uint64_t bytes_of(const PlannedTensor& tensor) {
  return static_cast<uint64_t>(tensor.base().elements()) * unit_bytes(tensor.dtype);
}

struct Line {
  std::string pattern, source;
  size_t tensors = 0;
  uint64_t bytes = 0;
};

void print_json(const AssemblyPlan& plan) {
  for (const PlannedTensor& tensor : plan.tensors) {
    Json one{{"tensor", tensor.traits.name}, {"bytes", bytes_of(tensor)}};
    one["rule"] = tensor.rule ? Json(*tensor.rule + 1) : Json();
    fmt::print("{}\n", write_json(one));
  }
  fmt::print("{}\n", write_json({{"tensors", plan.tensors.size()},
                                 {"files", plan.shards.size()},
                                 {"input_bytes", plan.input_bytes()},
                                 {"output_bytes", plan.output_bytes()}}));
}

}  // namespace

void print_plan(const AssemblyPlan& plan, bool json) {
  if (json) return print_json(plan);
  std::vector<Line> lines;
  for (const PlannedTensor& tensor : plan.tensors) {
    const std::string pattern = pattern_of(tensor.traits.name);
    const std::string source = source_of(plan, tensor);
    auto at = std::find_if(lines.begin(), lines.end(), [&](const Line& line) {
      return line.pattern == pattern && line.source == source;
    });
    if (at == lines.end()) at = lines.insert(lines.end(), {pattern, source, 0, 0});
    ++at->tensors;
    at->bytes += bytes_of(tensor);
  }
  size_t width = 7;
  for (const Line& line : lines) width = std::max(width, line.pattern.size());
  fmt::print("{:<{}}  tensors         bytes  from\n", "tensor", width);
  for (const Line& line : lines) {
    fmt::print("{:<{}}  {:>7}  {:>12}  {}\n", line.pattern, width, line.tensors, line.bytes,
               line.source);
  }
  const char* most = plan.only_differences() ? "at most " : "";
  fmt::print("reads {} bytes, writes {}{} bytes in {} file{}\n", plan.input_bytes(), most,
             plan.output_bytes(), plan.shards.size(), plan.shards.size() == 1 ? "" : "s");
}

}  // namespace chimera
