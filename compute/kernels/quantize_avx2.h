// Inputs brought into integers of 8 bits with AVX2. Private to the files compiled for it.
//
// Thread safety: pure functions.
#pragma once

#include <immintrin.h>

#include <cstring>

#include "compute/kernels/packed.h"

namespace chimera::kernels_impl {
namespace {  // one copy for each file that includes it; see impl.h

// How far ahead of the blocks in work the streams of a thread are asked for, all together: what a
// read of DRAM takes at 12 GB/s and 125 ns. Two and a half times as far was 2-10 % slower with two
// streams, half as far 5-10 % with one.
constexpr int64_t kAheadBytes = 1536;

/// Asks for `bytes` bytes of each of N panels some time before they are read.
template <int N>
[[gnu::always_inline]] inline void fetch_ahead(const std::byte* from, int64_t panel_bytes,
                                               int64_t bytes) {
#pragma GCC unroll 2
  for (int n = 0; n < N; ++n)
#pragma GCC unroll 9
    for (int64_t at = 0; at < bytes; at += 64)
      _mm_prefetch(reinterpret_cast<const char*>(from + n * panel_bytes + at + kAheadBytes / N),
                   _MM_HINT_T0);
}

// Sums of integers that are added to in the order of the source. The compiler takes the liberty to
// add integers as a tree, for whose leaves - a block's products of four rows - there are not
// registers enough: it kept them in memory, at twice the time.
[[gnu::always_inline]] inline void add_in_order(__m256i& sum, __m256i more) {
  sum = _mm256_add_epi32(sum, more);
  asm("" : "+v"(sum));
}
/// The same, of 16 bits.
[[gnu::always_inline]] inline void add_short_in_order(__m256i& sum, __m256i more) {
  sum = _mm256_add_epi16(sum, more);
  asm("" : "+v"(sum));
}

inline int32_t sum_of(__m256i v) {
  __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, _MM_SHUFFLE(1, 0, 3, 2)));
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, _MM_SHUFFLE(2, 3, 0, 1)));
  return _mm_cvtsi128_si32(s);
}

/// Bits of the largest magnitude of n inputs, a multiple of 32. Magnitudes compare like their bits;
/// NaN above all.
inline uint32_t largest_bits(const float* x, int64_t n) {
  const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
  __m256i most = _mm256_setzero_si256();
  for (int64_t i = 0; i < n; i += 32)
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const __m256i bits = _mm256_castps_si256(_mm256_loadu_ps(x + i + 8 * j));
      most = _mm256_max_epi32(most, _mm256_and_si256(bits, magnitude));
    }
  __m128i m = _mm_max_epi32(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
  m = _mm_max_epi32(m, _mm_shuffle_epi32(m, _MM_SHUFFLE(1, 0, 3, 2)));
  m = _mm_max_epi32(m, _mm_shuffle_epi32(m, _MM_SHUFFLE(2, 3, 0, 1)));
  return static_cast<uint32_t>(_mm_cvtsi128_si32(m));
}

/// Sums of integers, lane by lane: of the first 16 of 32 and of the others.
struct HalfSums {
  __m256i first, second;
};

/// 32 inputs times `factor`, rounded to nearest even.
inline HalfSums round_32(const float* x, __m256 factor, int8_t* codes) {
  __m256i q[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i)
    q[i] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8 * i), factor));
  // Packing works within halves of 16 bytes; the permutation puts groups of four in order again.
  const __m256i packed =
      _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes),
                      _mm256_permutevar8x32_epi32(packed, order));
  return {_mm256_add_epi32(q[0], q[1]), _mm256_add_epi32(q[2], q[3])};
}

/// What is left to do when no integer can be made: all are zero. Returns their scale.
inline float no_integers(uint32_t bits, int64_t n, int8_t* codes) {
  std::memset(codes, 0, static_cast<size_t>(n));
  return bits >= kNotFiniteBits ? std::numeric_limits<float>::quiet_NaN() : 0.0f;
}

}  // namespace
}  // namespace chimera::kernels_impl
