#include "experts/assembly/recipe/reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <numeric>

#include "base/limits.h"
#include "base/quote.h"
#include "base/yaml/field_value.h"
#include "experts/assembly/recipe/fields.h"
#include "experts/module/manifest.h"

namespace chimera {
namespace {

constexpr double kMostDelta = 1e6;
constexpr int64_t kMostSeed = 1LL << 53;  // what every reader of numbers keeps exactly

/// Equal places, however they are spelled.
bool same_path(const std::string& a, const std::string& b) {
  return std::filesystem::path(a).lexically_normal() == std::filesystem::path(b).lexically_normal();
}

/// What `rule` needs of its λ: linear and slerp not negative and together 1; slerp two parents.
void check_lambdas(Place at, const std::string& path, const MergeRule& rule, Problems& problems) {
  const std::string_view method = kMergeMethodNames.name(rule.method);
  const auto used = std::count_if(rule.lambda.begin(), rule.lambda.end(),
                                  [](double value) { return value != 0; });
  if (rule.method == MergeMethod::kSlerp && used > 2) {
    problems.add(at,
                 {fmt::format("{}: found {} parents (expected two: method slerp)", path, used)});
  }
  if (rule.method != MergeMethod::kLinear && rule.method != MergeMethod::kSlerp) return;
  const double sum = std::accumulate(rule.lambda.begin(), rule.lambda.end(), 0.0);
  const bool negative =
      std::any_of(rule.lambda.begin(), rule.lambda.end(), [](double value) { return value < 0; });
  constexpr std::string_view kElse = "task_arithmetic takes any";
  if (negative) {
    problems.add(at, {fmt::format("{}: found [{}] (expected none below 0: method {}; {})", path,
                                  fmt::join(rule.lambda, ", "), method, kElse)});
  } else if (std::fabs(sum - 1) > kSumTolerance) {
    problems.add(at, {fmt::format("{}: found the sum {} (expected 1: method {}; {})", path, sum,
                                  method, kElse)});
  }
}

class RecipeReader {
 public:
  RecipeReader(Recipe& recipe, Problems& problems) : recipe_(recipe), problems_(problems) {}

  void read(const FieldValue& root) {
    RecipeFields top(root, "", problems_);
    const auto is_format = [](std::string_view text) { return text == "assembly/1"; };
    std::string format;
    top.word("chimera", "assembly/1", is_format, format, FieldReader::kRequired);
    top.word("base", "the path of a parent", base_, FieldReader::kRequired);
    parents(top);
    rules(top);
    int64_t seed = 0;
    if (top.integer({"seed", 0, kMostSeed}, seed)) recipe_.seed = static_cast<uint64_t>(seed);
    if (const auto value = top.find("output")) output(*value);
    top.finish();
  }

 private:
  struct Given {
    RecipeParent parent;
    bool lambda = false;
  };

  void output(const FieldValue& value) {
    RecipeFields map(value, "output", problems_);
    map.float_dtype("dtype", recipe_.dtype);
    map.word("module",
             "1 to 63 of a-z, 0-9, _ and -, first a letter or digit; not backbone or base",
             is_module_name, recipe_.module);
    map.finish();
  }

  void parents(RecipeFields& top) {
    const std::string expected = fmt::format("a list of 1 to {} parents", kMaxParents);
    const auto list = top.items("parents", expected, FieldReader::kRequired);
    if (!list) return;
    if (list->size() > kMaxParents) return top.bad("parents", *list, expected);
    std::vector<Given> given;
    for (size_t i = 0; i < list->size(); ++i) {
      given.push_back(parent((*list)[i], fmt::format("parents[{}]", i), given));
    }
    share_out(std::move(given), *list);
  }

  Given parent(const FieldValue& value, std::string path, const std::vector<Given>& before) {
    RecipeFields map(value, std::move(path), problems_);
    Given out;
    const bool named = map.word("path", "a path", out.parent.path, FieldReader::kRequired);
    out.lambda = map.has("lambda");
    map.number({"lambda", -kMaxLambda, kMaxLambda}, out.parent.lambda);
    map.finish();
    const auto same = [&](const Given& other) {
      return same_path(other.parent.path, out.parent.path);
    };
    if (named && std::any_of(before.begin(), before.end(), same)) {
      map.bad("path", *map.find("path"), "every parent once");
    }
    return out;
  }

  /// Puts the base first, whether it is listed or not, and fills in the λ that are not given.
  void share_out(std::vector<Given> given, const FieldValue& list) {
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
        problems_.add(list.place(),
                      {fmt::format("parents: found no lambda of {} (expected one of every parent "
                                   "but the base, or of none)",
                                   quote(one.parent.path))});
      }
      rest -= one.parent.lambda;
    }
    if (!base.lambda) base.parent.lambda = rest;
    recipe_.parents.push_back(std::move(base.parent));
    for (Given& one : given) recipe_.parents.push_back(std::move(one.parent));
  }

  void rules(RecipeFields& top) {
    if (!top.has("rules")) {
      top.skip("rules");
      YamlNode routed_experts;  // a rule without keys
      routed_experts.kind = YamlNode::Kind::kMap;
      return rule(field_value(routed_experts), "rules");
    }
    const auto list = top.items("rules", "a list of at least one rule, or no such key");
    for (size_t i = 0; list && i < list->size(); ++i) {
      rule((*list)[i], fmt::format("rules[{}]", i));
    }
  }

  void rule(const FieldValue& value, std::string path) {
    RecipeFields map(value, std::move(path), problems_);
    MergeRule rule;
    double density = 1;
    map.word("tensors", "the name of a set, a glob or a /regular expression/", rule.tensors);
    map.ranges("layers", rule.layers);
    map.ranges("experts", rule.experts);
    map.choice("method", kMergeMethodNames, rule.method);
    map.number({"delta", 0, kMostDelta}, rule.delta);
    map.number({"density", kLeastDensity, 1}, density);
    const auto own = map.find("lambda");
    map.finish();
    if (recipe_.parents.empty()) return;  // a problem that was noted
    rule.density.assign(recipe_.parents.size(), density);
    for (const RecipeParent& parent : recipe_.parents) rule.lambda.push_back(parent.lambda);
    rule.own_lambda = own.has_value();
    if (!own || lambda(map, *own, rule.lambda)) {
      check_lambdas(own ? own->place() : value.place(), map.path_of("lambda"), rule, problems_);
    }
    recipe_.rules.push_back(std::move(rule));
  }

  /// A rule's own λ: parents that it does not name have 0, the base what is missing to 1. False
  /// when it was not read whole.
  bool lambda(const RecipeFields& map, const FieldValue& value, std::vector<double>& out) {
    if (!value.is_map() || value.size() == 0) {
      map.bad("lambda", value, "a map from parents to numbers, {../r1: 0.2}");
      return false;
    }
    std::fill(out.begin(), out.end(), 0.0);
    std::vector<std::string_view> paths;
    for (const RecipeParent& parent : recipe_.parents) paths.push_back(parent.path);
    bool good = true;
    bool base = false;
    double rest = 1;
    for (size_t i = 0; i < value.size(); ++i) {
      const FieldEntry entry = value.entry(i);
      const auto parent = std::find_if(
          recipe_.parents.begin(), recipe_.parents.end(),
          [&](const RecipeParent& one) { return same_path(one.path, std::string(entry.key)); });
      if (parent == recipe_.parents.end()) {
        problems_.add(entry.at, map.wording().unknown(map.path_of("lambda"), entry.key, paths));
        good = false;
        continue;
      }
      const auto index = static_cast<size_t>(parent - recipe_.parents.begin());
      good = map.read(entry.value, "lambda", RealRange{"lambda", -kMaxLambda, kMaxLambda},
                      out[index]) &&
             good;
      base = base || index == 0;
      rest -= out[index];
    }
    if (!base) out[0] = rest;
    return good;
  }

  Recipe& recipe_;
  Problems& problems_;
  std::string base_;
};

}  // namespace

void read_assembly(const FieldValue& root, Recipe& recipe, Problems& problems) {
  RecipeReader(recipe, problems).read(root);
}

}  // namespace chimera
