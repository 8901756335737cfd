// Which rule of a recipe takes a tensor.
//
// Thread safety: a RuleMatcher and free functions from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backbone/families/model_config.h"
#include "base/status.h"
#include "experts/assembly/recipe/recipe.h"

namespace chimera {

/// What rules look at. Experts inside a stack have the name that the family gives experts stored
/// one by one, so that a recipe means the same for both layouts; rules match either name.
struct TensorTraits {
  std::string name;    // e.g. model.layers.3.mlp.experts.5.up_proj.weight
  std::string stored;  // name in the file: the stack's, else the same
  int64_t layer = -1;  // -1: outside the layers
  int64_t slot = -1;   // of a routed expert, else -1
  uint32_t sets = 0;   // bit per TensorSet

  bool in(TensorSet set) const { return (sets >> static_cast<uint32_t>(set) & 1u) != 0; }
};

/// Traits of a tensor of a checkpoint.
TensorTraits traits_of(const ModelConfig& config, std::string_view name);
/// Of a tensor of a module (design §6: layers.3.experts.5.up_proj.weight, layers.3.gate.weight).
TensorTraits module_traits_of(std::string_view name);

class RuleMatcher {
 public:
  /// invalid_argument naming the rule whose regular expression is none.
  static Result<RuleMatcher> create(const Recipe& recipe);
  /// Index of the first rule that takes the tensor; none: it comes from the base.
  std::optional<size_t> match(const TensorTraits& traits) const;

 private:
  struct Pattern;
  std::vector<std::shared_ptr<const Pattern>> patterns_;
};

}  // namespace chimera
