#define CHIMERA_PEER EigenAvx2
#include <immintrin.h>

#include "rates/kernels_peer_impl.h"

namespace chimera::bench {

using Reg = float __attribute__((vector_size(32)));

namespace {

void int8_avx2(int64_t rounds) {
  const __m256i ones = _mm256_set1_epi16(1), weights = _mm256_set1_epi8(3);
  using Ints = int32_t __attribute__((vector_size(32)));
  peer_multiply_add_int8<Ints>(rounds, [=](Ints sum) {
    // The sum is an operand, or the compiler would multiply once.
    const __m256i pairs = _mm256_maddubs_epi16(weights, reinterpret_cast<__m256i>(sum));
    return sum + reinterpret_cast<Ints>(_mm256_madd_epi16(pairs, ones));
  });
}

}  // namespace

const Peer kPeerAvx2 = make_peer<Reg>(int8_avx2);

}  // namespace chimera::bench
