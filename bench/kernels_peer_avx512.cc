// GCC 12 takes the deliberately undefined operands inside its own AVX-512 header for mistakes (GCC
// bug 105593), wherever that header's functions are inlined.
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#define CHIMERA_PEER EigenAvx512
#include "kernels_peer.h"

#include <immintrin.h>

namespace chimera::bench {
namespace {

void multiply_add(int64_t rounds) {
  __m512 sum[kPeerChains];
  // Different numbers, or the compiler sees one chain.
  for (int i = 0; i < kPeerChains; ++i) sum[i] = _mm512_set1_ps(static_cast<float>(i));
  const __m512 a = _mm512_set1_ps(0.5f), b = _mm512_set1_ps(1.0f);
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (__m512& s : sum) s = _mm512_fmadd_ps(s, a, b);
  }
  for (__m512& s : sum) asm volatile("" ::"v"(s));  // used, so computed
}

}  // namespace

const Peer kPeerAvx512 = {peer_matmul, multiply_add, 16};

}  // namespace chimera::bench
