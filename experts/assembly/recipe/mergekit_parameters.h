// Numbers of mergekit's recipes that depend on the tensor: a constant, a gradient over the layers,
// or a list of {filter, value}. mergekit.h says how they are read. Private to mergekit.cc.
//
// Thread safety: values, and free functions by the thread that reads a recipe.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "experts/assembly/recipe/fields.h"

namespace chimera {

/// A number that may depend on the tensor.
struct MergekitSetting {
  struct Filter;
  std::vector<double> gradient;  // one value: everywhere
  std::vector<Filter> filters;   // the first that fits the tensor's name counts

  /// For the tensor `name` at the place `t` of the layers, from 0 to 1; `otherwise` when nothing is
  /// said about it.
  double at(const std::string& name, double t, double otherwise) const;
};

struct MergekitSetting::Filter {
  std::string text;  // a part of the name; "" and "*" are part of every one
  MergekitSetting setting;
};

/// A block `parameters`; what it does not hold is unset.
struct MergekitParameters {
  std::optional<MergekitSetting> weight, density, t, lambda;
  std::optional<bool> normalize;
};

/// Reads the field `parameters` of `map`; none when it has no such field.
std::optional<MergekitParameters> read_mergekit_parameters(RecipeFields& map);

/// The parameters of one slice, or of the whole of `models`.
struct MergekitSlice final : TensorParameters {
  MergeMethod method = MergeMethod::kLinear;
  std::vector<MergekitParameters> own;  // [parents]
  MergekitParameters common;            // of what a parent has no own one
  int64_t first = 0, last = 0;          // layers
  std::string written;                  // in the recipe

  void apply(const std::string& name, int64_t layer, MergeRule& rule) const override;
  std::string text() const override { return written; }
  /// Whether weights are divided by their sum.
  bool normalized() const;

 private:
  using Member = std::optional<MergekitSetting> MergekitParameters::*;
  struct Spot {
    const std::string& name;
    double t;
  };
  double number(Member member, size_t parent, const Spot& spot, double otherwise) const;
  double place_of(const std::string& name, int64_t layer) const;
};

}  // namespace chimera
