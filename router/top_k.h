// How many experts a token visits: what a composition says, what its modules were fitted for, or
// what the checkpoint says.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backbone/families/model_config.h"
#include "base/limits.h"
#include "experts/module/manifest.h"

namespace chimera {

/// `top_k` where neither composition nor modules say one: the checkpoint's own, and 2 for a dense
/// family (ModelConfig::dense_base). There the only base expert gets weight 1 as long as it is
/// alone, so that no modules give exactly the dense model, and one appended expert per token can
/// join it.
int64_t default_top_k(const ModelConfig& config);

/// A module and the top_k that its manifest states, if it does.
struct FittedModule {
  std::string name;
  std::optional<int64_t> top_k;
};

/// The composition's own number; else the one that its modules state, the largest where they
/// disagree; else `fallback`, which is default_top_k. So modules route as they were fitted, and
/// without them everything is as if they had never been there.
int64_t effective_top_k(std::optional<int64_t> composition, std::span<const FittedModule> modules,
                        int64_t fallback);

/// One sentence per module that was fitted for another number than the composition uses.
std::vector<std::string> top_k_notes(std::optional<int64_t> composition,
                                     std::span<const FittedModule> modules, int64_t fallback);

}  // namespace chimera
