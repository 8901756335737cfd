// adapter_config.json: what PEFT's LoraConfig says of an adapter (Hugging Face PEFT, versions 0.5
// to 0.18).
//
// Whatever would change what the adapter computes is read or refused by name; keys that matter to
// training alone are passed over.
//
// Thread safety: a value for one thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "experts/lora/name_pattern.h"

namespace chimera {

class LoraConfig {
 public:
  /// All problems at once, one per line. data_corrupt: no JSON object; invalid_argument: wrong type
  /// or value; unimplemented: an option that is not supported.
  static Result<LoraConfig> parse(std::string_view json, const std::string& label);

  std::string base_model;                      // base_model_name_or_path; for messages
  NameSelection targets, excluded;             // target_modules, exclude_modules
  bool all_linear = false;                     // target_modules: "all-linear"
  std::vector<std::string> target_parameters;  // stacks of experts
  std::optional<std::vector<int64_t>> layers;  // layers_to_transform
  int64_t rank = 0;
  bool dora = false;  // use_dora: every change comes with the lengths of the changed weight's rows
  /// Of stacks stored [E, outputs, inputs], PEFT took inputs for outputs and outputs for inputs
  /// until 0.18. Nothing: it does not say which version wrote it.
  std::optional<bool> swaps_stacks;

  /// Of one part of the model: the first entry of rank_pattern (alpha_pattern) that matches the end
  /// of its name, else r (lora_alpha).
  int64_t rank_of(std::string_view name) const;
  /// What B A is multiplied with: alpha / r, or alpha / sqrt(r) with use_rslora (Kalajdzievski
  /// 2023, arXiv 2312.03732).
  double scale_of(std::string_view name) const;
  /// Whether target_parameters names this stack.
  bool takes_parameter(std::string_view name) const;
  /// Whether the adapter says that it changes this part. `expert`: -1 for none.
  bool takes(std::string_view name, int64_t layer, int64_t expert) const;

 private:
  friend class LoraConfigReader;
  double alpha_ = 8.0;
  bool root_scale_ = false;
  std::vector<std::pair<NamePattern, int64_t>> ranks_;
  std::vector<std::pair<NamePattern, double>> alphas_;
};

}  // namespace chimera
