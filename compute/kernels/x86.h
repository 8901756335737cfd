// Folding of partial sums shared by the AVX2 and AVX-512 kernels; see impl.h for the order.
// Private to those two files: everything is in an anonymous namespace, compiled per file.
//
// Thread safety: pure functions.
#pragma once

#include <immintrin.h>

namespace chimera {
namespace {

/// s8 -> the sum.
inline float fold_s8(__m256 s8) {
  const __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
  const __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
  return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
}

/// Four s8 -> four sums, by the same additions with half the instructions.
inline void fold4_s8(__m256 a, __m256 b, __m256 c, __m256 d, float* out) {
  const __m256 ab4 = _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20),
                                   _mm256_permute2f128_ps(a, b, 0x31));  // [a s4 | b s4]
  const __m256 cd4 =
      _mm256_add_ps(_mm256_permute2f128_ps(c, d, 0x20), _mm256_permute2f128_ps(c, d, 0x31));
  const __m256 low = _mm256_shuffle_ps(ab4, cd4, 0x44);         // [a01 c01 | b01 d01]
  const __m256 high = _mm256_shuffle_ps(ab4, cd4, 0xee);        // [a23 c23 | b23 d23]
  const __m256 s2 = _mm256_add_ps(low, high);                   // [a s2, c s2 | b s2, d s2]
  const __m256 s1 = _mm256_add_ps(s2, _mm256_movehdup_ps(s2));  // [a . c . | b . d .]
  const __m128 ac = _mm256_castps256_ps128(s1);
  const __m128 bd = _mm256_extractf128_ps(s1, 1);
  const __m128 mixed = _mm_shuffle_ps(ac, bd, 0x88);  // a c b d
  _mm_storeu_ps(out, _mm_shuffle_ps(mixed, mixed, 0xd8));
}

}  // namespace
}  // namespace chimera
