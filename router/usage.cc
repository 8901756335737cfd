#include "router/usage.h"

namespace chimera {

void SequenceUsage::add(const std::string& module, double amount) {
  mass[module] += amount;
  total += amount;
}

void RouterStats::Layer::add_module(const std::string& module,
                                    std::span<const uint64_t> tokens_per_expert, double amount) {
  std::vector<uint64_t>& counts = expert_tokens[module];
  if (counts.size() < tokens_per_expert.size()) counts.resize(tokens_per_expert.size(), 0);
  for (size_t e = 0; e < tokens_per_expert.size(); ++e) counts[e] += tokens_per_expert[e];
  mass[module] += amount;
}

}  // namespace chimera
