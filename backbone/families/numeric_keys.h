// The keys of config.json that change the numbers, over all families, whether implemented here or
// not.
//
// A family reads the keys that it implements (ConfigReader remembers which). Every other key of
// this table that a file states with a value that asks for something is refused by name: a
// checkpoint must never run approximately because its vendor added a key. Keys outside the table
// (training, caching, names of tools) are harmless and ignored.
//
// Thread safety: constant data.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "backbone/families/model_config.h"

namespace chimera {

/// Which values ask for nothing beyond what a family does anyway; null always does.
enum class Harmless : uint8_t {
  kNothing,      // none
  kOff,          // false, 0, an empty list, map or text
  kOn,           // true, 1
  kOne,          // 1: a factor
  kOffOrOne,     // 0 or 1: a count of groups
  kSilu,         // silu, swish
  kRotary,       // rope, rotary
  kGreedy,       // greedy: plain top-k
  kQkNorm,       // whether the family norms queries and keys
  kScores,       // softmax or sigmoid, as the family's router scores
  kNormalised,   // whether the family normalises the weights of the chosen experts
  kCorrection,   // whether the family's router has a correction bias
  kGrouped,      // whether the family's router chooses groups first
  kTopK,         // num_experts_per_tok
  kShared,       // anything where the family has shared experts, whose widths are read elsewhere
  kInterleaved,  // whether the family rotates pairs (2i, 2i + 1)
  kRotaryWidth,  // the number of rotated channels
};

struct NumericKey {
  std::string_view name;
  Harmless harmless;
  std::string_view asks;       // for what, in messages
  std::string_view with = {};  // the key counts only where this one is not false
};

/// Keys of config.json, and of its text_config.
std::span<const NumericKey> numeric_keys();
/// Whether a value, as JSON text, asks for nothing that a model of this configuration lacks.
bool asks_for_nothing(Harmless harmless, std::string_view value, const ModelConfig& config);
/// Keys inside rope_scaling and rope_parameters.
std::span<const NumericKey> numeric_rope_keys();

}  // namespace chimera
