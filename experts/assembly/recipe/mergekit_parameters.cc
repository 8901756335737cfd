#include "experts/assembly/recipe/mergekit_parameters.h"

#include <algorithm>
#include <cmath>

namespace chimera {
namespace {

constexpr double kMost = 1e6;
// Weights whose sum is nearer to 0 are not divided by it; mergekit's own bound.
constexpr double kLeastSum = 1e-8;

void read_setting(const RecipeFields& map, std::string_view key, const FieldValue& value,
                  MergekitSetting& out);

void read_filter(const RecipeFields& map, std::string_view key, const FieldValue& value,
                 MergekitSetting& out) {
  RecipeFields fields(value, map.path_of(key), map.problems());
  std::string filter;
  const auto any = [](std::string_view) { return true; };
  if (const auto named = fields.find("filter"); named && !named->is_null()) {
    fields.word("filter", "a part of a tensor's name", any, filter);
  }
  MergekitSetting setting;
  if (const auto number = fields.find("value", FieldReader::kRequired, "a number or a gradient")) {
    read_setting(fields, "value", *number, setting);
  }
  fields.finish();
  out.filters.push_back({std::move(filter), std::move(setting)});
}

void read_setting(const RecipeFields& map, std::string_view key, const FieldValue& value,
                  MergekitSetting& out) {
  const auto add = [&](const FieldValue& one) {
    double number = 0;
    if (map.read(one, key, RealRange{key, -kMost, kMost}, number)) out.gradient.push_back(number);
  };
  if (!value.is_list()) return add(value);
  if (value.size() == 0) return map.bad(key, value, "at least one number");
  for (size_t i = 0; i < value.size(); ++i) {
    const FieldValue item = value[i];
    if (item.is_map()) {
      read_filter(map, key, item, out);
    } else {
      add(item);
    }
  }
  if (!out.filters.empty() && !out.gradient.empty()) {
    map.bad(key, value, "either numbers or maps with filter and value");
  }
}

/// As mergekit's files have it: true and false, or 1 and 0.
std::optional<bool> read_flag(RecipeFields& map, std::string_view key) {
  const auto value = map.find(key);
  if (!value) return std::nullopt;
  std::optional<bool> flag = value->boolean();
  const std::optional<double> number = value->number();
  if (number && (*number == 0 || *number == 1)) flag = *number == 1;
  if (!flag) map.bad(key, *value, "true or false");
  return flag;
}

}  // namespace

double MergekitSetting::at(const std::string& name, double t, double otherwise) const {
  for (const auto& [filter, setting] : filters) {
    if (filter.empty() || filter == "*" || name.find(filter) != std::string::npos) {
      return setting.at(name, t, otherwise);
    }
  }
  if (gradient.empty()) return otherwise;
  const double place = t * static_cast<double>(gradient.size() - 1);
  const auto low = static_cast<size_t>(place);
  const size_t high = std::min(gradient.size() - 1, low + 1);
  const double part = place - static_cast<double>(low);
  return (1 - part) * gradient[low] + part * gradient[high];
}

std::optional<MergekitParameters> read_mergekit_parameters(RecipeFields& map) {
  const auto value = map.find("parameters");
  if (!value) return std::nullopt;
  RecipeFields fields(*value, map.path_of("parameters"), map.problems());
  MergekitParameters out;
  const auto setting = [&fields](std::string_view key, std::optional<MergekitSetting>& into) {
    if (const auto found = fields.find(key)) read_setting(fields, key, *found, into.emplace());
  };
  setting("weight", out.weight);
  setting("density", out.density);
  setting("t", out.t);
  setting("lambda", out.lambda);
  out.normalize = read_flag(fields, "normalize");
  if (read_flag(fields, "rescale") == false) fields.bad("rescale", *fields.find("rescale"), "true");
  read_flag(fields, "int8_mask");  // saves memory there and does not change the numbers
  fields.finish();
  return out;
}

bool MergekitSlice::normalized() const {
  const bool by_default = method == MergeMethod::kLinear || method == MergeMethod::kTies;
  return common.normalize.value_or(by_default);
}

double MergekitSlice::number(Member member, size_t parent, const Spot& spot,
                             double otherwise) const {
  const auto& mine = own[parent].*member;
  const auto& shared = common.*member;
  if (mine) return mine->at(spot.name, spot.t, otherwise);
  return shared ? shared->at(spot.name, spot.t, otherwise) : otherwise;
}

double MergekitSlice::place_of(const std::string& name, int64_t layer) const {
  if (layer < 0) return name.find("embed") == std::string::npos ? 1 : 0;
  if (last <= first) return 0;
  return static_cast<double>(layer - first) / static_cast<double>(last - first);
}

void MergekitSlice::apply(const std::string& name, int64_t layer, MergeRule& rule) const {
  const Spot spot{name, place_of(name, layer)};
  if (method == MergeMethod::kSlerp) {
    const double t = number(&MergekitParameters::t, 0, spot, 0);
    rule.lambda = {1 - t, t};
    return;
  }
  const bool differences = method != MergeMethod::kLinear;
  double sum = 0;
  for (size_t i = 0; i < own.size(); ++i) {
    const bool base = i == 0 && differences;
    rule.lambda[i] = base ? 0 : number(&MergekitParameters::weight, i, spot, 0);
    rule.density[i] =
        std::clamp(number(&MergekitParameters::density, i, spot, 1), kLeastDensity, 1.0);
    sum += rule.lambda[i];
  }
  rule.scale = number(&MergekitParameters::lambda, 0, spot, 1);
  const bool ties = method == MergeMethod::kTies || method == MergeMethod::kDareTies;
  if (ties || !normalized() || std::fabs(sum) < kLeastSum) return;
  for (double& value : rule.lambda) value /= sum;
}

}  // namespace chimera
