// Packed products with AVX2. Private to avx2.cc, which is compiled for it.
//
// The instruction at hand, maddubs, multiplies unsigned by signed bytes and adds pairs in 16 bits,
// saturating:
//   q8   |w| times sign(w) * x: 2 * 127 * 127 = 32,258 stays below 32,767, so pairs are exact; they
//        are widened to 32 bits at once
//   q4   w + 8 in [0, 15] times x: 2 * 15 * 127 = 3,810, so the 8 groups of a block add up to at
//        most 30,480 in 16 bits and are widened once a block. 8 * sum(x) comes off again: a sum
//        begins with its half of that, -4 * sum(x), which keeps it within the same 30,480 at the
//        end
//   table formats   as q8 with the integers that the table says; those of mxfp4 reach 12, and the 8
//        groups of a block 24,384 in 16 bits
//
// Thread safety: pure functions.
#pragma once

#include <immintrin.h>

#include <bit>

#include "compute/kernels/packed.h"
#include "compute/kernels/packed_k_avx2.h"
#include "compute/kernels/quantize_avx2.h"

namespace chimera::kernels_impl {
namespace {  // one copy for each file that includes it; see impl.h

struct PackedAvx2 {
  static BlockSums quantize(const float* x, int8_t* codes) {
    const uint32_t bits = largest_bits(x, kBlockInputs);
    const float top = std::bit_cast<float>(bits);
    if (bits >= kNotFiniteBits || top < kLeastInput)
      return {no_integers(bits, kBlockInputs, codes), 0};
    const HalfSums sums = round_32(x, _mm256_set1_ps(127.0f / top), codes);
    const int32_t sum = sum_of(_mm256_add_epi32(sums.first, sums.second));
    // Twice in a lane, whatever its sign.
    const auto twice = static_cast<uint32_t>(-4 * sum & 0xffff) * 0x10001u;
    return {top / 127.0f, static_cast<int32_t>(twice)};
  }
  template <int64_t kGroup>
  static float quantize_k(const float* x, int8_t* codes, int16_t* sums) {
    return quantize_k_avx2<kGroup>(x, codes, sums);
  }

  template <WeightFormat F, int M, int N>
  static void tile(const PackedTile& t) {
    if constexpr (is_k_format(F)) {
      k_tile_avx2<F, M, N>(t);
    } else {
      plain_tile<F, M, N>(t);
    }
  }

 private:
  template <WeightFormat F, int M, int N>
  static void plain_tile(const PackedTile& t) {
    constexpr int64_t kBytes = info_of(F).block_bytes;
    __m256 y[M][N][2];
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) y[m][n][0] = y[m][n][1] = _mm256_setzero_ps();
    const std::byte* block = t.weights;
    for (int64_t b = 0; b < t.blocks; ++b, block += kBytes) {
      __m256i sums[M][N][2];
      fetch_ahead<N>(block, t.panel_bytes, kBytes);
      if constexpr (F == WeightFormat::kQ8)
        block_q8<M, N>(t, block, b, sums);
      else if constexpr (is_table_format(F))
        block_table<F, M, N>(t, block, b, sums);
      else
        block_q4<M, N>(t, block, b, sums);
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) {
        const auto* halves = reinterpret_cast<const __m128i*>(block + n * t.panel_bytes);
        const __m256 low = _mm256_cvtph_ps(_mm_loadu_si128(halves));
        const __m256 high = _mm256_cvtph_ps(_mm_loadu_si128(halves + 1));
#pragma GCC unroll 4
        for (int m = 0; m < M; ++m) {
          const __m256 x = _mm256_set1_ps(t.scales[m * t.blocks + b]);
          y[m][n][0] =
              _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[m][n][0]), _mm256_mul_ps(low, x), y[m][n][0]);
          y[m][n][1] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[m][n][1]), _mm256_mul_ps(high, x),
                                       y[m][n][1]);
        }
      }
    }
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) {
        float* out = t.y + m * t.ldy + n * t.panel_y;
        _mm256_storeu_ps(out, y[m][n][0]);
        _mm256_storeu_ps(out + 8, y[m][n][1]);
      }
  }

  static __m256i load(const std::byte* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  static __m256i group(const PackedTile& t, int m, int64_t b, int g) {
    int32_t four;
    std::memcpy(&four, t.codes + (m * t.blocks + b) * kBlockInputs + 4 * g, sizeof(four));
    return _mm256_set1_epi32(four);
  }

  template <int M, int N>
  [[gnu::always_inline]] static void clear(__m256i (&sums)[M][N][2]) {
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) sums[m][n][0] = sums[m][n][1] = _mm256_setzero_si256();
  }

  template <int M, int N>
  [[gnu::always_inline]] static void block_q8(const PackedTile& t, const std::byte* block,
                                              int64_t b, __m256i (&sums)[M][N][2]) {
    const __m256i ones = _mm256_set1_epi16(1);
    clear(sums);
#pragma GCC unroll 8
    for (int g = 0; g < 8; ++g) {
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) {
        const std::byte* at = block + n * t.panel_bytes + kPanelScaleBytes + 64 * g;
        const __m256i w0 = load(at);
        const __m256i w1 = load(at + 32);
        const __m256i a0 = _mm256_abs_epi8(w0);
        const __m256i a1 = _mm256_abs_epi8(w1);
#pragma GCC unroll 4
        for (int m = 0; m < M; ++m) {
          const __m256i x = group(t, m, b, g);
          const __m256i p0 = _mm256_maddubs_epi16(a0, _mm256_sign_epi8(x, w0));
          const __m256i p1 = _mm256_maddubs_epi16(a1, _mm256_sign_epi8(x, w1));
          add_in_order(sums[m][n][0], _mm256_madd_epi16(p0, ones));
          add_in_order(sums[m][n][1], _mm256_madd_epi16(p1, ones));
        }
      }
    }
  }

  template <WeightFormat F, int M, int N>
  [[gnu::always_inline]] static void block_table(const PackedTile& t, const std::byte* block,
                                                 int64_t b, __m256i (&sums)[M][N][2]) {
    constexpr bool kShort = F == WeightFormat::kMXFP4;  // sums of a block fit 16 bits
    const __m256i low_bits = _mm256_set1_epi8(15);
    const __m256i ones = _mm256_set1_epi16(1);
    const __m256i table = _mm256_broadcastsi128_si256(
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(integers_of(F).data())));
    clear(sums);
#pragma GCC unroll 8
    for (int g = 0; g < 8; ++g) {
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) {
        const std::byte* at = block + n * t.panel_bytes + kPanelScaleBytes + g / 2 * 64;
#pragma GCC unroll 2
        for (int half = 0; half < 2; ++half) {
          const __m256i bytes = load(at + 32 * half);
          const __m256i places =
              _mm256_and_si256(g % 2 == 0 ? bytes : _mm256_srli_epi16(bytes, 4), low_bits);
          const __m256i w = _mm256_shuffle_epi8(table, places);
          const __m256i a = _mm256_abs_epi8(w);
#pragma GCC unroll 4
          for (int m = 0; m < M; ++m) {
            const __m256i p = _mm256_maddubs_epi16(a, _mm256_sign_epi8(group(t, m, b, g), w));
            if constexpr (kShort)
              add_short_in_order(sums[m][n][half], p);
            else
              add_in_order(sums[m][n][half], _mm256_madd_epi16(p, ones));
          }
        }
      }
    }
    if constexpr (!kShort) return;
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n)
#pragma GCC unroll 2
        for (int half = 0; half < 2; ++half)
          sums[m][n][half] = _mm256_madd_epi16(sums[m][n][half], ones);
  }

  template <int M, int N>
  [[gnu::always_inline]] static void block_q4(const PackedTile& t, const std::byte* block,
                                              int64_t b, __m256i (&sums)[M][N][2]) {
    const __m256i low_bits = _mm256_set1_epi8(15);
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) {
      const __m256i begin = _mm256_set1_epi32(t.offsets[m * t.blocks + b]);
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) sums[m][n][0] = sums[m][n][1] = begin;
    }
#pragma GCC unroll 4
    for (int pair = 0; pair < 4; ++pair) {
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) {
        const std::byte* at = block + n * t.panel_bytes + kPanelScaleBytes + 64 * pair;
        const __m256i w0 = load(at);
        const __m256i w1 = load(at + 32);
        const __m256i low0 = _mm256_and_si256(w0, low_bits);
        const __m256i low1 = _mm256_and_si256(w1, low_bits);
        const __m256i high0 = _mm256_and_si256(_mm256_srli_epi16(w0, 4), low_bits);
        const __m256i high1 = _mm256_and_si256(_mm256_srli_epi16(w1, 4), low_bits);
#pragma GCC unroll 4
        for (int m = 0; m < M; ++m) {
          const __m256i first = group(t, m, b, 2 * pair);
          add_short_in_order(sums[m][n][0], _mm256_maddubs_epi16(low0, first));
          add_short_in_order(sums[m][n][1], _mm256_maddubs_epi16(low1, first));
          const __m256i second = group(t, m, b, 2 * pair + 1);
          add_short_in_order(sums[m][n][0], _mm256_maddubs_epi16(high0, second));
          add_short_in_order(sums[m][n][1], _mm256_maddubs_epi16(high1, second));
        }
      }
    }
    const __m256i ones = _mm256_set1_epi16(1);
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n)
#pragma GCC unroll 2
        for (int half = 0; half < 2; ++half)
          sums[m][n][half] = _mm256_madd_epi16(sums[m][n][half], ones);
  }
};

}  // namespace
}  // namespace chimera::kernels_impl
