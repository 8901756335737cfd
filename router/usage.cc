#include "router/usage.h"

#include <algorithm>
#include <utility>

namespace chimera {

void SequenceUsage::add(const std::string& module, double amount, uint64_t given) {
  mass[module] += amount;
  rows[module] += given;
  total += amount;
}

void RouterStats::Layer::add_module(const std::string& module,
                                    std::span<const uint64_t> tokens_per_expert, double amount) {
  std::vector<uint64_t>& counts = expert_tokens[module];
  if (counts.size() < tokens_per_expert.size()) counts.resize(tokens_per_expert.size(), 0);
  for (size_t e = 0; e < tokens_per_expert.size(); ++e) counts[e] += tokens_per_expert[e];
  mass[module] += amount;
}

void RouterStats::Layer::move_into(Layer& total) {
  if (tokens == 0) return;  // then nothing was counted here
  for (auto& [module, counts] : expert_tokens) {
    double& amount = mass[module];
    const bool any = std::any_of(counts.begin(), counts.end(), [](uint64_t n) { return n > 0; });
    if (!any && amount == 0.0) continue;  // counted once, and perhaps forgotten since
    total.add_module(module, counts, amount);
    std::fill(counts.begin(), counts.end(), 0);
    amount = 0.0;
  }
  total.entropy_sum += std::exchange(entropy_sum, 0.0);
  total.tokens += std::exchange(tokens, 0);
}

void RouterStats::move_into(RouterStats& total) {
  if (total.layers.size() < layers.size()) total.layers.resize(layers.size());
  for (size_t i = 0; i < layers.size(); ++i) layers[i].move_into(total.layers[i]);
  // What was shown stays here as well: the next pass that uses the module need not allocate.
  for (const auto& [module, mark] : last_pass) total.last_pass[module] = mark;
}

void RouterStats::forget_module(const std::string& module) {
  for (Layer& layer : layers) {
    layer.expert_tokens.erase(module);
    layer.mass.erase(module);
  }
  last_pass.erase(module);
}

}  // namespace chimera
