#include "experts/offline/slot_sets.h"

#include <fmt/format.h>

#include "base/io/env.h"
#include "base/yaml/tree.h"
#include "experts/module/index_ranges.h"

namespace chimera {
namespace {

constexpr size_t kMaxMapBytes = 1u << 20;
constexpr std::string_view kSlots = "expert numbers such as 2-5,7, or a list of them";

std::vector<std::string_view> split_at(std::string_view text, char at) {
  std::vector<std::string_view> parts;
  while (true) {
    const size_t end = text.find(at);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

/// Reads the tree of a map file; every problem is noted and reading goes on.
class MapReader {
 public:
  explicit MapReader(YamlProblems& problems) : problems_(problems) {}

  std::vector<SplitModule> read(const YamlNode& root) {
    std::vector<SplitModule> modules;
    if (root.kind != YamlNode::Kind::kMap || root.entries.empty()) {
      problems_.add(root, "split map", "a map from module names to slots");
      return modules;
    }
    for (const auto& [name, value] : root.entries) {
      SplitModule module{name.text, {}};
      if (!is_module_name(name.text)) {
        problems_.add(
            name, "module name",
            "1 to 63 of a-z, 0-9, _ and -, first a letter or digit; not backbone or base");
      }
      if (value.kind == YamlNode::Kind::kMap) {
        for (const auto& [layers, slots] : value.entries) add_layers(layers, slots, module);
      } else {
        module.slots.emplace(-1, read_slots(value));
      }
      modules.push_back(std::move(module));
    }
    return modules;
  }

 private:
  std::vector<int64_t> read_slots(const YamlNode& node) {
    std::vector<int64_t> slots;
    const bool list = node.kind == YamlNode::Kind::kList;
    if (!list && node.kind != YamlNode::Kind::kScalar) {
      problems_.add(node, "slots", kSlots);
      return slots;
    }
    const auto add = [&](const YamlNode& item) {
      const Result<std::vector<int64_t>> parsed = parse_slots(item.text);
      if (item.kind != YamlNode::Kind::kScalar || !parsed.ok()) {
        problems_.add(item, "slots", kSlots);
        return;
      }
      slots.insert(slots.end(), parsed->begin(), parsed->end());
    };
    if (!list) add(node);
    for (const YamlNode& item : node.items) add(item);
    if (list && node.items.empty()) problems_.add(node, "slots", kSlots);
    return slots;
  }

  void add_layers(const YamlNode& key, const YamlNode& value, SplitModule& module) {
    const std::vector<int64_t> slots = read_slots(value);
    std::vector<int64_t> layers{-1};
    if (key.text != "all") {
      const Result<std::vector<int64_t>> parsed = parse_slots(key.text);
      if (!parsed.ok()) {
        problems_.add(key, "layer", "a layer number, a range such as 3-5, or all");
        return;
      }
      layers = *parsed;
    }
    for (const int64_t layer : layers) {
      if (!module.slots.emplace(layer, slots).second) {
        problems_.add(key, "layer", fmt::format("layer {} once", layer));
      }
    }
  }

  YamlProblems& problems_;
};

}  // namespace

Result<std::vector<int64_t>> parse_slots(std::string_view text) {
  const Result<IndexRanges> ranges = parse_index_ranges(text);
  if (!ranges.ok()) return ranges.status();
  std::vector<int64_t> slots;
  for (const auto& [first, last] : *ranges) {
    for (int64_t slot = first; slot <= last; ++slot) slots.push_back(slot);
  }
  return slots;
}

Result<SplitModule> parse_split_module(std::string_view text) {
  const size_t equals = text.find('=');
  SplitModule module{std::string(text.substr(0, equals)), {}};
  if (equals == std::string_view::npos) return module;
  for (const std::string_view part : split_at(text.substr(equals + 1), ';')) {
    const size_t colon = part.find(':');
    int64_t layer = -1;
    if (colon != std::string_view::npos) {
      const Result<IndexRanges> found = parse_index_ranges(part.substr(0, colon));
      const bool single =
          found.ok() && found->size() == 1 && found->front().first == found->front().second;
      if (!single) {
        return Status(Code::kInvalidArgument,
                      fmt::format("layer: \"{}\" (expected a number)", part.substr(0, colon)));
      }
      layer = found->front().first;
    }
    Result<std::vector<int64_t>> slots =
        parse_slots(colon == std::string_view::npos ? part : part.substr(colon + 1));
    if (!slots.ok()) return slots.status().with_context("slots");
    if (!module.slots.emplace(layer, std::move(*slots)).second) {
      return Status(Code::kInvalidArgument, fmt::format("\"{}\" names a layer twice", text));
    }
  }
  return module;
}

Result<std::vector<SplitModule>> parse_split_map(std::string_view yaml, const std::string& label) {
  YamlProblems problems(label);
  const Result<YamlNode> root = parse_yaml(yaml, label, problems);
  if (!root.ok()) return root.status();
  std::vector<SplitModule> modules = MapReader(problems).read(*root);
  if (!problems.empty()) return problems.status("Write NAME: 2-5,7 or NAME: {0: [1, 2], 3-5: 4}.");
  return modules;
}

Result<std::vector<SplitModule>> read_split_map(const std::string& path) {
  const Result<std::string> text = read_file(Env::system(), path, kMaxMapBytes);
  if (!text.ok()) return text.status();
  return parse_split_map(*text, path);
}

}  // namespace chimera
