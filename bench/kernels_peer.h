// What the kernels are measured against, compiled for each instruction set: Eigen's product, and
// the rate of fused multiply-adds that one thread reaches. Private to kernels.cc and
// kernels_peer_*.cc.
//
// Each file that defines CHIMERA_PEER gets an Eigen of its own (the namespace is renamed), since
// templates of one name compiled with different options must not meet in one program.
#pragma once

#include <cstdint>

namespace chimera::bench {

/// y = x W^T with Eigen in float: x [m, k], w [n, k], y [m, n], row-major.
using PeerMatmul = void (*)(const float* x, const float* w, float* y, int64_t m, int64_t n,
                            int64_t k);

struct Peer {
  PeerMatmul matmul;
  /// Runs `rounds` times 12 independent fused multiply-adds of a whole register.
  void (*multiply_add)(int64_t rounds);
  int lanes;  // floats per register
};

inline constexpr int kPeerChains = 12;

extern const Peer kPeerAvx2, kPeerAvx512;

}  // namespace chimera::bench

#ifdef CHIMERA_PEER
#define Eigen CHIMERA_PEER
#include <Eigen/Dense>

namespace chimera::bench {
namespace {

void peer_matmul(const float* x, const float* w, float* y, int64_t m, int64_t n, int64_t k) {
  using RowMajor =
      Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, static_cast<int>(Eigen::RowMajor)>;
  const Eigen::Map<const RowMajor> left(x, m, k);
  const Eigen::Map<const RowMajor> right(w, n, k);
  Eigen::Map<RowMajor>(y, m, n).noalias() = left * right.transpose();
}

}  // namespace
}  // namespace chimera::bench
#endif
