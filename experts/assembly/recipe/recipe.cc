#include "experts/assembly/recipe/recipe.h"

#include <fmt/format.h>

#include <filesystem>

#include "base/io/env.h"
#include "base/quote.h"
#include "base/yaml/field_value.h"
#include "experts/assembly/recipe/mergekit.h"
#include "experts/assembly/recipe/reader.h"

namespace chimera {
namespace {

constexpr std::string_view kHint = "docs/assembly.md shows every key of a recipe.";

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
  const FieldValue top = field_value(*root);
  if (!top.find("chimera") && is_mergekit(top)) {
    read_mergekit(top, recipe, problems);
  } else {
    read_assembly(top, recipe, problems);
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
