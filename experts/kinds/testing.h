// What tests of modules ask of a loaded one.
//
// Thread safety: free function, from any thread.
#pragma once

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "experts/kinds/module.h"

namespace chimera {

/// Gate rows and what all experts give for the same few rows of `hidden` numbers, by layer and
/// expert: equal where two modules compute the same, to the bit.
inline std::vector<std::vector<float>> expert_outputs(const Module& module, int64_t hidden) {
  constexpr int64_t kRows = 5;
  std::mt19937 rng(7);
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<size_t>(kRows * hidden));
  for (float& v : x) v = normal(rng);
  FloatBuffer scratch;
  ThreadPool pool(1);
  ExpertContext context{best_kernels(), pool, scratch};
  std::vector<std::vector<float>> out;
  for (const auto& [layer, part] : module.layers) {
    out.push_back(part.gate_weight);
    for (const auto& expert : part.experts) {
      std::vector<float>& y = out.emplace_back(x.size());
      EXPECT_TRUE(expert->forward(x.data(), kRows, y.data(), context).ok());
    }
  }
  return out;
}

}  // namespace chimera
