#include "experts/assembly/recipe.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "base/io/env.h"
#include "base/quote.h"
#include "experts/assembly/mergekit.h"
#include "experts/assembly/recipe_fields.h"
#include "experts/module/manifest.h"

namespace chimera {
namespace {

constexpr size_t kMaxRecipeBytes = 1u << 20;
constexpr size_t kMostParents = 64;
constexpr double kMostLambda = 1000, kMostDelta = 1e6;
constexpr std::string_view kHint = "docs/assembly.md shows every key of a recipe.";

/// Equal places, however they are spelled.
bool same_path(const std::string& a, const std::string& b) {
  return std::filesystem::path(a).lexically_normal() == std::filesystem::path(b).lexically_normal();
}

class RecipeReader {
 public:
  RecipeReader(Recipe& recipe, YamlProblems& problems) : recipe_(recipe), problems_(problems) {}

  void read(const YamlNode& root) {
    const YamlNode* parents = nullptr;
    const YamlNode* rules = nullptr;
    read_fields(root, "recipe", {"chimera", "base", "parents"},
                {{"chimera", [&](const YamlNode& n) { read_format(n); }},
                 {"base", [&](const YamlNode& n) { base_ = read_text(n, "base", problems_); }},
                 {"parents", [&](const YamlNode& n) { parents = &n; }},
                 {"rules", [&](const YamlNode& n) { rules = &n; }},
                 {"seed", [&](const YamlNode& n) { read_seed(n); }},
                 {"output", [&](const YamlNode& n) { read_output(n); }}},
                problems_);
    if (parents != nullptr) read_parents(*parents);
    if (rules != nullptr && rules->kind == YamlNode::Kind::kList) {
      for (const YamlNode& rule : rules->items) read_rule(rule);
      if (rules->items.empty()) problems_.add(*rules, "rules", "at least one rule, or no such key");
    } else if (rules != nullptr) {
      problems_.add(*rules, "rules", "a list of rules");
    } else {
      YamlNode routed_experts;  // a rule without keys
      routed_experts.kind = YamlNode::Kind::kMap;
      read_rule(routed_experts);
    }
  }

 private:
  void read_format(const YamlNode& node) {
    if (node.text != "assembly/1") problems_.add(node, "chimera", "assembly/1");
  }

  void read_seed(const YamlNode& node) {
    constexpr double kMostSeed = 9007199254740992.0;  // what every reader of numbers keeps exactly
    const auto seed = read_number(node, "seed", 0, kMostSeed, problems_);
    if (seed) recipe_.seed = static_cast<uint64_t>(*seed);
  }

  void read_output(const YamlNode& node) {
    read_fields(node, "output", {},
                {{"dtype",
                  [&](const YamlNode& n) {
                    recipe_.dtype = read_float_dtype(n, "output.dtype", problems_);
                  }},
                 {"module",
                  [&](const YamlNode& n) {
                    recipe_.module = n.text;
                    if (n.kind == YamlNode::Kind::kScalar && is_module_name(n.text)) return;
                    problems_.add(n, "output.module",
                                  "1 to 63 of a-z, 0-9, _ and -, first a letter or digit; not "
                                  "backbone or base");
                  }}},
                problems_);
  }

  void read_parents(const YamlNode& node) {
    if (node.kind != YamlNode::Kind::kList || node.items.empty() ||
        node.items.size() > kMostParents) {
      problems_.add(node, "parents", fmt::format("a list of 1 to {} parents", kMostParents));
      return;
    }
    struct Given {
      RecipeParent parent;
      bool lambda = false;
    };
    std::vector<Given> given;
    for (const YamlNode& item : node.items) {
      Given one;
      read_fields(
          item, "parents", {"path"},
          {{"path",
            [&](const YamlNode& n) { one.parent.path = read_text(n, "parents.path", problems_); }},
           {"lambda",
            [&](const YamlNode& n) {
              one.lambda = true;
              one.parent.lambda =
                  read_number(n, "parents.lambda", -kMostLambda, kMostLambda, problems_)
                      .value_or(0);
            }}},
          problems_);
      for (const Given& other : given) {
        if (same_path(other.parent.path, one.parent.path)) {
          problems_.add(item, "parents.path", "every parent once");
        }
      }
      given.push_back(std::move(one));
    }
    // The base comes first, whether it is listed or not.
    const auto listed = std::find_if(given.begin(), given.end(), [&](const Given& one) {
      return same_path(one.parent.path, base_);
    });
    Given base{{base_, 0}, false};
    if (listed != given.end()) {
      base = *listed;
      given.erase(listed);
    }
    const bool none_given =
        std::none_of(given.begin(), given.end(), [](const Given& one) { return one.lambda; });
    double rest = 1;
    for (Given& one : given) {
      // Without any number, all take part alike.
      if (none_given && !base.lambda) {
        one.parent.lambda = 1.0 / static_cast<double>(given.size() + 1);
      } else if (!one.lambda) {
        problems_.add(node, fmt::format("parents: found no lambda of {} (expected one of every "
                                        "parent but the base, or of none)",
                                        quote(one.parent.path)));
      }
      rest -= one.parent.lambda;
    }
    if (!base.lambda) base.parent.lambda = rest;
    recipe_.parents.push_back(std::move(base.parent));
    for (Given& one : given) recipe_.parents.push_back(std::move(one.parent));
  }

  void read_rule(const YamlNode& node) {
    MergeRule rule;
    const YamlNode* lambda = nullptr;
    double density = 1;
    read_fields(
        node, "rules", {},
        {{"tensors",
          [&](const YamlNode& n) { rule.tensors = read_text(n, "rules.tensors", problems_); }},
         {"layers",
          [&](const YamlNode& n) { rule.layers = read_ranges(n, "rules.layers", problems_); }},
         {"experts",
          [&](const YamlNode& n) { rule.experts = read_ranges(n, "rules.experts", problems_); }},
         {"method", [&](const YamlNode& n) { read_method(n, rule); }},
         {"lambda", [&](const YamlNode& n) { lambda = &n; }},
         {"delta",
          [&](const YamlNode& n) {
            rule.delta = read_number(n, "rules.delta", 0, kMostDelta, problems_).value_or(0);
          }},
         {"density",
          [&](const YamlNode& n) {
            density = read_number(n, "rules.density", 1e-9, 1, problems_).value_or(1);
          }}},
        problems_);
    if (recipe_.parents.empty()) return;  // a problem that was noted
    rule.density.assign(recipe_.parents.size(), density);
    read_rule_lambda(lambda, rule);
    check_rule_lambdas(lambda != nullptr ? *lambda : node, rule, problems_);
    recipe_.rules.push_back(std::move(rule));
  }

  void read_method(const YamlNode& node, MergeRule& rule) {
    const auto method =
        node.kind == YamlNode::Kind::kScalar ? kMergeMethodNames.find(node.text) : std::nullopt;
    if (method) rule.method = *method;
    if (!method) problems_.add(node, "rules.method", kMergeMethodNames.choices());
  }

  /// A rule's own λ: parents that it does not name have 0, the base what is missing to 1.
  void read_rule_lambda(const YamlNode* node, MergeRule& rule) {
    for (const RecipeParent& parent : recipe_.parents) rule.lambda.push_back(parent.lambda);
    if (node == nullptr) return;
    std::fill(rule.lambda.begin(), rule.lambda.end(), 0.0);
    if (node->kind != YamlNode::Kind::kMap || node->entries.empty()) {
      problems_.add(*node, "rules.lambda", "a map from parents to numbers, {../r1: 0.2}");
      return;
    }
    bool base = false;
    double rest = 1;
    for (const YamlEntry& entry : node->entries) {
      const auto parent = std::find_if(
          recipe_.parents.begin(), recipe_.parents.end(),
          [&](const RecipeParent& one) { return same_path(one.path, entry.key.text); });
      if (parent == recipe_.parents.end()) {
        problems_.add(entry.key, "rules.lambda", "the path of one of the parents");
        continue;
      }
      const auto value =
          read_number(entry.value, "rules.lambda", -kMostLambda, kMostLambda, problems_);
      const auto index = static_cast<size_t>(parent - recipe_.parents.begin());
      rule.lambda[index] = value.value_or(0);
      base = base || index == 0;
      rest -= rule.lambda[index];
    }
    if (!base) rule.lambda[0] = rest;
  }

  Recipe& recipe_;
  YamlProblems& problems_;
  std::string base_;
};

void warn_of_gates(Recipe& recipe) {
  for (const MergeRule& rule : recipe.rules) {
    if (rule.tensors != "gate" && rule.tensors != "all" &&
        rule.tensors.find("gate.weight") == std::string::npos &&
        rule.tensors.find("router") == std::string::npos) {
      continue;
    }
    recipe.warnings.push_back(fmt::format(
        "{}: the rule for {} merges gates: a gate belongs to the experts it was trained with, and "
        "an average of two routes worse than either",
        recipe.label, quote(rule.tensors)));
  }
}

Json ranges_json(const std::optional<IndexRanges>& ranges) {
  if (!ranges) return {};
  Json out = Json::array();
  for (const auto& [first, last] : *ranges) out.push_back(Json::array({first, last}));
  return out;
}

}  // namespace

std::string Recipe::parent_path(size_t i) const {
  const std::filesystem::path path = parents[i].path;
  if (path.is_absolute() || directory.empty()) return path.string();
  return (std::filesystem::path(directory) / path).lexically_normal().string();
}

Result<Recipe> parse_recipe(std::string_view yaml, const std::string& label,
                            const std::string& directory) {
  YamlProblems problems(label);
  const Result<YamlNode> root = parse_yaml(yaml, label, problems);
  if (!root.ok()) return root.status();
  Recipe recipe;
  recipe.label = label;
  recipe.directory = directory;
  const bool native = std::any_of(root->entries.begin(), root->entries.end(),
                                  [](const auto& e) { return e.key.text == "chimera"; });
  if (!native && is_mergekit(*root)) {
    read_mergekit(*root, recipe, problems);
  } else {
    RecipeReader(recipe, problems).read(*root);
  }
  if (!problems.empty()) return problems.status(std::string(kHint));
  warn_of_gates(recipe);
  return recipe;
}

Result<Recipe> read_recipe(const std::string& path) {
  const Result<std::string> text = read_file(Env::system(), path, kMaxRecipeBytes);
  if (!text.ok()) return text.status();
  return parse_recipe(*text, path, parent_directory(path));
}

Json recipe_json(const Recipe& recipe) {
  Json out;
  out["rules"] = Json::array();
  Json& rules = *out.find("rules");
  for (const MergeRule& rule : recipe.rules) {
    Json one;
    one["tensors"] = rule.tensors;
    if (rule.layers) one["layers"] = ranges_json(rule.layers);
    if (rule.experts) one["experts"] = ranges_json(rule.experts);
    one["method"] = kMergeMethodNames.text(rule.method);
    one["lambda"] = rule.lambda;
    one["delta"] = rule.delta;
    one["density"] = rule.density;
    if (rule.consensus != Consensus::kPaper) {
      one["consensus"] = rule.consensus == Consensus::kMean ? "mean" : "sum";
    }
    if (rule.scale != 1) one["scale"] = rule.scale;
    if (rule.parameters) one["parameters"] = rule.parameters->text();
    rules.push_back(std::move(one));
  }
  out["seed"] = recipe.seed;
  out["dtype"] = recipe.dtype ? Json(std::string(dtype_name(*recipe.dtype))) : Json();
  out["module"] = recipe.module;
  return out;
}

}  // namespace chimera
