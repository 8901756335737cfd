#include "experts/assembly/recipe_fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>

#include "base/suggest.h"

namespace chimera {
namespace {

// As module manifests: above any released model.
constexpr int64_t kMaxIndex = 65535;
// Decimal fractions do not add up exactly; 0.1 + 0.2 + 0.7 misses 1 by 1e-16.
constexpr double kSumTolerance = 1e-6;

std::optional<int64_t> index_of(std::string_view text) {
  int64_t value = -1;
  const char* end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, value);
  if (text.empty() || parsed.ec != std::errc() || parsed.ptr != end || value < 0 ||
      value > kMaxIndex) {
    return std::nullopt;
  }
  return value;
}

bool add_ranges(std::string_view text, IndexRanges& out) {
  while (true) {
    const size_t comma = text.find(',');
    std::string_view part = text.substr(0, comma);
    while (part.starts_with(' ')) part.remove_prefix(1);
    const size_t dash = part.find('-');
    const auto first = index_of(part.substr(0, dash));
    const auto last = dash == std::string_view::npos ? first : index_of(part.substr(dash + 1));
    if (!first || !last || *last < *first) return false;
    out.emplace_back(*first, *last);
    if (comma == std::string_view::npos) return true;
    text.remove_prefix(comma + 1);
  }
}

}  // namespace

void read_fields(const YamlNode& map, std::string_view where,
                 const std::vector<std::string_view>& required, const FieldHandlers& handlers,
                 YamlProblems& problems) {
  if (map.kind != YamlNode::Kind::kMap) {
    problems.add(map, where, "a map");
    return;
  }
  std::set<std::string_view> seen;
  std::vector<std::string_view> known;
  for (const auto& [key, handler] : handlers) known.push_back(key);
  for (const YamlEntry& entry : map.entries) {
    const auto at = std::find(known.begin(), known.end(), entry.key.text);
    if (at == known.end()) {
      const std::string_view near = nearest(entry.key.text, known);
      problems.add(entry.key, near.empty()
                                  ? fmt::format("{}: found the unknown key {} (expected one of {})",
                                                where, entry.key.found(), fmt::join(known, ", "))
                                  : fmt::format("{}: found the unknown key {} (expected {}?)",
                                                where, entry.key.found(), near));
      continue;
    }
    seen.insert(entry.key.text);
    handlers[static_cast<size_t>(at - known.begin())].second(entry.value);
  }
  for (const std::string_view key : required) {
    if (seen.count(key) == 0) {
      problems.add(map, fmt::format("{}: found no key {} (expected it)", where, key));
    }
  }
}

std::optional<double> read_number(const YamlNode& node, std::string_view key, double min,
                                  double max, YamlProblems& problems) {
  double value = 0;
  const char* end = node.text.data() + node.text.size();
  const bool scalar = node.kind == YamlNode::Kind::kScalar && node.plain && !node.text.empty();
  if (scalar) {
    const auto parsed = std::from_chars(node.text.data(), end, value);
    const bool good = parsed.ec == std::errc() && parsed.ptr == end && std::isfinite(value);
    if (good && value >= min && value <= max) return value;
  }
  problems.add(node, key, fmt::format("a number from {} to {}", min, max));
  return std::nullopt;
}

std::optional<IndexRanges> read_ranges(const YamlNode& node, std::string_view key,
                                       YamlProblems& problems) {
  IndexRanges ranges;
  bool good = node.kind == YamlNode::Kind::kScalar && add_ranges(node.text, ranges);
  if (node.kind == YamlNode::Kind::kList) {
    good = !node.items.empty();
    for (const YamlNode& item : node.items) {
      good = good && item.kind == YamlNode::Kind::kScalar && add_ranges(item.text, ranges);
    }
  }
  if (good) return ranges;
  problems.add(node, key, fmt::format("numbers from 0 to {}, such as 3-60 or 1,5-7", kMaxIndex));
  return std::nullopt;
}

std::string read_text(const YamlNode& node, std::string_view key, YamlProblems& problems) {
  if (node.kind == YamlNode::Kind::kScalar && !node.text.empty()) return node.text;
  problems.add(node, key, "text");
  return {};
}

std::optional<DType> read_float_dtype(const YamlNode& node, std::string_view key,
                                      YamlProblems& problems) {
  constexpr std::pair<std::string_view, DType> kNames[] = {
      {"f32", DType::kF32},     {"f16", DType::kF16},     {"bf16", DType::kBF16},
      {"float32", DType::kF32}, {"float16", DType::kF16}, {"bfloat16", DType::kBF16}};
  for (const auto& [name, dtype] : kNames) {
    if (node.kind == YamlNode::Kind::kScalar && node.text == name) return dtype;
  }
  problems.add(node, key, "f32, f16 or bf16");
  return std::nullopt;
}

void check_rule_lambdas(const YamlNode& at, const MergeRule& rule, YamlProblems& problems) {
  const auto used = std::count_if(rule.lambda.begin(), rule.lambda.end(),
                                  [](double value) { return value != 0; });
  if (rule.method == MergeMethod::kSlerp && used > 2) {
    problems.add(at, fmt::format("lambda: found {} parents (expected two: method slerp)", used));
  }
  if (rule.method != MergeMethod::kLinear && rule.method != MergeMethod::kSlerp) return;
  double sum = 0;
  bool negative = false;
  for (const double value : rule.lambda) {
    sum += value;
    negative = negative || value < 0;
  }
  if (negative) {
    problems.add(at,
                 fmt::format("lambda: found [{}] (expected none below 0: method {}; "
                             "task_arithmetic takes any)",
                             fmt::join(rule.lambda, ", "), kMergeMethodNames.name(rule.method)));
  } else if (std::fabs(sum - 1) > kSumTolerance) {
    problems.add(at, fmt::format("lambda: found the sum {} (expected 1: method {}; task_arithmetic "
                                 "takes any)",
                                 sum, kMergeMethodNames.name(rule.method)));
  }
}

}  // namespace chimera
