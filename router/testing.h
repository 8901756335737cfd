// Small models made up in memory, shared by the tests of this room.
//
// Thread safety: none; by the thread of its test.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "router/moe.h"

namespace chimera::testing {

inline ModelConfig small_config(int64_t experts, int64_t top_k, bool norm) {
  ModelConfig config;
  config.model_type = "olmoe";
  config.hidden_size = 32;
  config.intermediate_size = 24;
  config.num_layers = 2;
  config.num_experts = experts;
  config.num_experts_per_tok = top_k;
  config.norm_topk_prob = norm;
  return config;
}

inline std::vector<float> random_values(std::mt19937& rng, int64_t n, float scale) {
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> values(static_cast<size_t>(n));
  for (float& v : values) v = normal(rng);
  return values;
}

inline Matrix random_matrix(std::mt19937& rng, int64_t rows, int64_t cols) {
  auto values = std::make_shared<std::vector<float>>(random_values(rng, rows * cols, 0.3f));
  return {values->data(), WeightFormat::kF32, rows, cols, values};
}

inline std::shared_ptr<const Expert> random_expert(std::mt19937& rng, const ModelConfig& c) {
  Matrix gate = random_matrix(rng, c.intermediate_size, c.hidden_size);
  Matrix up = random_matrix(rng, c.intermediate_size, c.hidden_size);
  Matrix down = random_matrix(rng, c.hidden_size, c.intermediate_size);
  return make_swiglu_expert(std::move(gate), std::move(up), std::move(down));
}

/// A module with `n` random experts in every layer; replacing ones take slots 0..n-1.
inline std::shared_ptr<Module> random_module(std::mt19937& rng, const ModelConfig& c,
                                             const std::string& name, int64_t n, Attach attach) {
  auto module = std::make_shared<Module>();
  module->manifest.name = name;
  module->manifest.attach = attach;
  for (int64_t layer = 0; layer < c.num_layers; ++layer) {
    ModuleLayer part;
    for (int64_t e = 0; e < n; ++e) {
      part.experts.push_back(random_expert(rng, c));
      if (attach == Attach::kReplace || name == "backbone") part.slots.push_back(e);
    }
    part.gate_weight = random_values(rng, n * c.hidden_size, 0.5f);
    module->layers.emplace(layer, std::move(part));
  }
  return module;
}

/// The mask whose members are the bits set in `bits`.
inline ModuleMask mask_of(uint64_t bits) {
  ModuleMask mask;
  for (size_t i = 0; i < 64; ++i) {
    if ((bits >> i & 1) != 0) mask.add(i);
  }
  return mask;
}

inline CompositionModule entry(const std::string& name, float bias = 0.0f, bool enabled = true) {
  return {name, "1.0.0", "sha256:" + name, "", enabled, bias};
}

/// Builds a table of these modules, all enabled; fails the test by returning null.
inline std::shared_ptr<const RoutingTable> make_table(
    const ModelConfig& config, const std::shared_ptr<const Module>& base,
    const std::vector<std::shared_ptr<const Module>>& modules, Composition composition = {}) {
  if (composition.modules.empty()) {
    for (const auto& module : modules) composition.modules.push_back(entry(module->name()));
  }
  auto table = RoutingTableBuilder(config, base).build(1, composition, modules);
  return table.ok() ? *table : nullptr;
}

/// One row through all layers of the router, each fed the same x: [layers, rows, hidden].
inline std::vector<float> run_layers(MoeRouter& router, const ModelConfig& config,
                                     std::span<RoutedSegment> segments, const std::vector<float>& x,
                                     RouterStats* stats = nullptr) {
  const auto rows = static_cast<int64_t>(x.size()) / config.hidden_size;
  std::vector<float> y(x.size() * static_cast<size_t>(config.num_layers));
  router.begin_pass(segments, stats);
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    float* out = y.data() + layer * static_cast<int64_t>(x.size());
    if (!router.forward(layer, x.data(), rows, out).ok()) return {};
  }
  return y;
}

}  // namespace chimera::testing
