#include "router/top_k.h"

#include <fmt/format.h>

#include <algorithm>

namespace chimera {

int64_t default_top_k(const ModelConfig& config) {
  return config.dense_base ? std::max<int64_t>(2, config.num_experts_per_tok)
                           : config.num_experts_per_tok;
}

int64_t effective_top_k(std::optional<int64_t> composition, std::span<const FittedModule> modules,
                        int64_t fallback) {
  if (composition) return *composition;
  int64_t largest = 0;
  for (const FittedModule& module : modules) largest = std::max(largest, module.top_k.value_or(0));
  return largest > 0 ? largest : fallback;
}

std::vector<std::string> top_k_notes(std::optional<int64_t> composition,
                                     std::span<const FittedModule> modules, int64_t fallback) {
  const int64_t used = effective_top_k(composition, modules, fallback);
  std::vector<std::string> notes;
  for (const FittedModule& module : modules) {
    if (!module.top_k || *module.top_k == used) continue;
    notes.push_back(fmt::format(
        "module {} was fitted for top_k {}, but {} {}", module.name, *module.top_k,
        composition ? "the composition says" : "the largest that the modules here state is", used));
  }
  return notes;
}

}  // namespace chimera
