// GCC 12 takes the deliberately undefined operands inside its own AVX-512 header for mistakes (GCC
// bug 105593), wherever that header's functions are inlined.
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#define CHIMERA_PEER EigenAvx512
#include <immintrin.h>

#include "rates/kernels_peer_impl.h"

namespace chimera::bench {

using Reg = float __attribute__((vector_size(64)));

namespace {

/// Without VNNI, which not every machine with AVX-512 has: the kernels do not use it either.
void int8_avx512(int64_t rounds) {
  const __m512i ones = _mm512_set1_epi16(1), weights = _mm512_set1_epi8(3);
  using Ints = int32_t __attribute__((vector_size(64)));
  peer_multiply_add_int8<Ints>(rounds, [=](Ints sum) {
    const __m512i pairs = _mm512_maddubs_epi16(weights, reinterpret_cast<__m512i>(sum));
    return sum + reinterpret_cast<Ints>(_mm512_madd_epi16(pairs, ones));
  });
}

}  // namespace

const Peer kPeerAvx512 = make_peer<Reg>(int8_avx512);

}  // namespace chimera::bench
