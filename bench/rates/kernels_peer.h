// What the kernels are measured against, compiled for each instruction set: Eigen's product, and
// the rate of multiply-adds that one thread reaches. Private to kernels.cc and kernels_peer_*.cc.
//
// Thread safety: constants; the functions are pure.
#pragma once

#include <cstdint>

namespace chimera::bench {

struct Peer {
  /// y = x W^T with Eigen in float: x [m, k], w [n, k], y [m, n], row-major.
  void (*matmul)(const float* x, const float* w, float* y, int64_t m, int64_t n, int64_t k);
  /// Runs kPeerChains independent multiply-adds of a whole register, `rounds` times.
  void (*multiply_add)(int64_t rounds);
  /// The same with products of 8-bit integers that are added in 32 bits: four per lane.
  void (*multiply_add_int8)(int64_t rounds);
  int lanes;  // floats per register
};

// Two ports times a latency of 4 to 5 cycles need 8 to 10.
inline constexpr int kPeerChains = 12;

extern const Peer kPeerAvx2, kPeerAvx512;

}  // namespace chimera::bench
