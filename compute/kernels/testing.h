// For tests of the kernels: operands drawn from a fixed seed, and the vector instruction sets that
// this machine runs.
//
// Thread safety: none; by the thread of its test.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <vector>

#include "compute/kernels/kernels.h"

namespace chimera {

inline std::vector<Isa> vector_isas() {
  std::vector<Isa> isas;
  for (Isa isa : {Isa::kAvx2, Isa::kAvx512})
    if (isa_supported(isa)) isas.push_back(isa);
  return isas;
}

/// Fixture. Every test begins with the same numbers.
class RandomOperands : public testing::Test {
 protected:
  static constexpr uint32_t kSeed = 20261122;

  std::vector<float> normal(int64_t n, float scale = 1.0f) {
    std::normal_distribution<float> d(0.0f, scale);
    std::vector<float> v(static_cast<size_t>(n));
    for (float& x : v) x = d(random_);
    return v;
  }
  int64_t between(int64_t least, int64_t most) {
    return std::uniform_int_distribution<int64_t>(least, most)(random_);
  }

  std::mt19937 random_{kSeed};
};

}  // namespace chimera
