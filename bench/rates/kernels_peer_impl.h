// A Peer. Private to kernels_peer_*.cc, each of which names an Eigen of its own in CHIMERA_PEER:
// templates of one name compiled with different options must not meet in one program.
//
// Thread safety: pure functions.
#pragma once

#define Eigen CHIMERA_PEER
#include <Eigen/Dense>

#include "rates/kernels_peer.h"

namespace chimera::bench {
namespace {

void peer_matmul(const float* x, const float* w, float* y, int64_t m, int64_t n, int64_t k) {
  using RowMajor =
      Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, static_cast<int>(Eigen::RowMajor)>;
  const Eigen::Map<const RowMajor> left(x, m, k);
  const Eigen::Map<const RowMajor> right(w, n, k);
  Eigen::Map<RowMajor>(y, m, n).noalias() = left * right.transpose();
}

/// Reg: a vector of floats. Fused, as these files are compiled with contraction.
template <class Reg>
void peer_multiply_add(int64_t rounds) {
  Reg sum[kPeerChains];
  // Different numbers, or the compiler sees one chain.
  for (int i = 0; i < kPeerChains; ++i) sum[i] = Reg{} + static_cast<float>(i);
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (Reg& s : sum) s = s * 0.5f + 1.0f;
  }
  for (Reg& s : sum) asm volatile("" ::"x"(s));  // used, so computed
}

/// Ints: a vector of int32. step(sum): the sum with one product of every lane's four bytes more.
template <class Ints, class Step>
void peer_multiply_add_int8(int64_t rounds, Step step) {
  Ints sum[kPeerChains];
  for (int i = 0; i < kPeerChains; ++i) sum[i] = Ints{} + i;
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (Ints& s : sum) s = step(s);
  }
  for (Ints& s : sum) asm volatile("" ::"x"(s));
}

template <class Reg>
constexpr Peer make_peer(void (*multiply_add_int8)(int64_t)) {
  return {peer_matmul, peer_multiply_add<Reg>, multiply_add_int8, sizeof(Reg) / sizeof(float)};
}

}  // namespace
}  // namespace chimera::bench
