#include "experts/assembly/recipe/lambdas.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "base/limits.h"
#include "base/quote.h"

namespace chimera {
namespace {

std::string directory_name(const std::string& path) {
  const std::filesystem::path normal = std::filesystem::path(path).lexically_normal();
  const std::string last = normal.filename().string();
  return last.empty() ? normal.parent_path().filename().string() : last;
}

/// The first rule that takes the coefficients and wants a mixture; null when none does.
const MergeRule* mixing_rule(const Recipe& recipe) {
  for (const MergeRule& rule : recipe.rules) {
    const bool mixes = rule.method == MergeMethod::kLinear || rule.method == MergeMethod::kSlerp;
    if (mixes && !rule.own_lambda) return &rule;
  }
  return nullptr;
}

Status check_mixture(const Recipe& recipe, const Lambdas& lambdas) {
  const MergeRule* rule = mixing_rule(recipe);
  if (rule == nullptr) return {};
  const std::string_view method = kMergeMethodNames.name(rule->method);
  double sum = 0;
  for (const std::string& name : parent_names(recipe)) {
    const double value = lambdas.at(name);
    sum += value;
    if (value >= 0) continue;
    return {Code::kInvalidArgument,
            fmt::format("lambda: parent {}: found {} (expected 0 to 1: method {})", name, value,
                        method),
            "The base has what the other parents leave; name it as well, or give them less"};
  }
  if (std::fabs(sum - 1) <= kSumTolerance) return {};
  return {Code::kInvalidArgument,
          fmt::format("lambda: found {}, {} in all (expected 1 in all: method {})",
                      lambdas_text(lambdas), sum, method),
          "Leave the base out: it has what is missing"};
}

}  // namespace

std::vector<std::string> parent_names(const Recipe& recipe) {
  std::vector<std::string> names;
  for (const RecipeParent& parent : recipe.parents) {
    const std::string own = directory_name(parent.path);
    const auto same =
        std::count_if(recipe.parents.begin(), recipe.parents.end(),
                      [&](const RecipeParent& other) { return directory_name(other.path) == own; });
    names.push_back(same == 1 ? own : parent.path);
  }
  return names;
}

Lambdas lambdas_of(const Recipe& recipe) {
  const std::vector<std::string> names = parent_names(recipe);
  Lambdas out;
  for (size_t i = 0; i < names.size(); ++i) out[names[i]] = recipe.parents[i].lambda;
  return out;
}

Result<Lambdas> complete_lambdas(const Recipe& recipe, const Lambdas& current,
                                 const Lambdas& given) {
  const std::vector<std::string> names = parent_names(recipe);
  Lambdas out = current;
  for (const auto& [name, value] : given) {
    if (std::find(names.begin(), names.end(), name) == names.end()) {
      return Status(Code::kNotFound,
                    fmt::format("lambda: parent {}: found no such one (expected {})", quote(name),
                                fmt::join(names, ", ")));
    }
    if (!std::isfinite(value) || std::fabs(value) > kMaxLambda) {
      return Status(Code::kInvalidArgument,
                    fmt::format("lambda: parent {}: found {} (expected -{} to {})", name, value,
                                kMaxLambda, kMaxLambda));
    }
    out[name] = value;
  }
  const std::string* rest = given.count(names[0]) == 0 ? names.data() : nullptr;
  if (rest == nullptr && names.size() == 2 && given.count(names[1]) == 0) rest = &names[1];
  if (rest != nullptr) {
    double sum = 0;
    for (const std::string& name : names) sum += &name == rest ? 0 : out[name];
    out[*rest] = 1 - sum;
    // Sums of decimals miss 1 by a bit or two.
    if (std::fabs(out[*rest]) <= kSumTolerance) out[*rest] = 0;
    if (std::fabs(out[*rest]) > kMaxLambda) {
      return Status(Code::kInvalidArgument,
                    fmt::format("lambda: parent {}: found {}, what the others leave (expected -{} "
                                "to {})",
                                *rest, out[*rest], kMaxLambda, kMaxLambda));
    }
  }
  CHIMERA_RETURN_IF_ERROR(check_mixture(recipe, out));
  return out;
}

Result<Recipe> with_lambdas(Recipe recipe, const Lambdas& lambdas) {
  const std::vector<std::string> names = parent_names(recipe);
  std::vector<double> values;
  for (const std::string& name : names) {
    const auto at = lambdas.find(name);
    if (at == lambdas.end() || lambdas.size() != names.size()) {
      return Status(Code::kInvalidArgument,
                    fmt::format("lambda: found {} (expected one of each of {})",
                                lambdas_text(lambdas), fmt::join(names, ", ")));
    }
    values.push_back(at->second);
  }
  bool taken = false;
  for (MergeRule& rule : recipe.rules) {
    if (rule.own_lambda || rule.parameters) continue;
    rule.lambda = values;
    taken = true;
  }
  if (!taken) {
    return Status(Code::kFailedPrecondition,
                  recipe.label + ": found coefficients in every rule (expected a rule without)",
                  "A blend sets the coefficients of the parents, which rules of their own hide");
  }
  for (size_t i = 0; i < values.size(); ++i) recipe.parents[i].lambda = values[i];
  return recipe;
}

std::string lambdas_text(const Lambdas& lambdas) {
  std::string out;
  for (const auto& [name, value] : lambdas) {
    out += fmt::format("{}{} {}", out.empty() ? "" : ", ", name, value);
  }
  return out;
}

}  // namespace chimera
