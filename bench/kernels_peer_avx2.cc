#define CHIMERA_PEER EigenAvx2
#include "kernels_peer.h"

#include <immintrin.h>

namespace chimera::bench {
namespace {

void multiply_add(int64_t rounds) {
  __m256 sum[kPeerChains];
  // Different numbers, or the compiler sees one chain.
  for (int i = 0; i < kPeerChains; ++i) sum[i] = _mm256_set1_ps(static_cast<float>(i));
  const __m256 a = _mm256_set1_ps(0.5f), b = _mm256_set1_ps(1.0f);
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (__m256& s : sum) s = _mm256_fmadd_ps(s, a, b);
  }
  for (__m256& s : sum) asm volatile("" ::"x"(s));  // used, so computed
}

}  // namespace

const Peer kPeerAvx2 = {peer_matmul, multiply_add, 8};

}  // namespace chimera::bench
