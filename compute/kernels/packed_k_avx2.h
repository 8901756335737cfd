// Products with K formats (k_layout.h) with AVX2. Private to the files compiled for it.
//
// maddubs multiplies codes by inputs and adds pairs in 16 bits; so many groups of four inputs as
// stay below 32,767 are added there (2 * 127 * the largest code each: eight with 4 bits, four with
// 5, two with 6). What widens them to 32 bits, a multiplication of pairs of 16 bits, multiplies
// them by s of their group in the same breath: the scales of the groups cost nothing. Sums of
// inputs times t (or s, where there is an offset) take one such multiplication for two groups.
//
// Largest sums of a block: q6_k 128 * 63 * 127 * 256 = 2.6e8, and 32 * 128 * 127 * 256 = 1.3e8 for
// its offset.
//
// Thread safety: pure functions.
#pragma once

#include <immintrin.h>

#include <bit>

#include "compute/kernels/packed.h"
#include "compute/kernels/quantize_avx2.h"

namespace chimera::kernels_impl {
namespace {  // one copy for each file that includes it; see impl.h

template <int64_t kGroup>
float quantize_k_avx2(const float* x, int8_t* codes, int16_t* sums) {
  const uint32_t bits = largest_bits(x, kSuperInputs);
  const float top = std::bit_cast<float>(bits);
  if (bits >= kNotFiniteBits || top < kLeastInput) {
    std::memset(sums, 0, kSuperInputs / kGroup * sizeof(*sums));
    return no_integers(bits, kSuperInputs, codes);
  }
  const __m256 factor = _mm256_set1_ps(127.0f / top);
  for (int64_t i = 0; i < kSuperInputs; i += kBlockInputs) {
    const HalfSums half = round_32(x + i, factor, codes + i);
    if constexpr (kGroup == kBlockInputs) {
      *sums++ = static_cast<int16_t>(sum_of(_mm256_add_epi32(half.first, half.second)));
    } else {
      *sums++ = static_cast<int16_t>(sum_of(half.first));
      *sums++ = static_cast<int16_t>(sum_of(half.second));
    }
  }
  return top / 127.0f;
}

/// Sums of a tile: [row][panel][half of its outputs].
template <int M, int N>
struct KSums {
  __m256i s[M][N][2];
};

template <WeightFormat F, int M, int N>
class KTile {
 public:
  explicit KTile(const PackedTile& t) : t_(t) {}

  [[gnu::always_inline]] void run() const {
    __m256 y[M][N][2];
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) y[m][n][0] = y[m][n][1] = _mm256_setzero_ps();
    const std::byte* block = t_.weights;
    for (int64_t b = 0; b < t_.blocks; ++b, block += kLayout.bytes()) add_block(block, b, y);
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) {
        float* out = t_.y + m * t_.ldy + n * t_.panel_y;
        _mm256_storeu_ps(out, y[m][n][0]);
        _mm256_storeu_ps(out + 8, y[m][n][1]);
      }
  }

 private:
  static constexpr KLayout kLayout = k_layout(F);
  static constexpr int kQuads = static_cast<int>(kLayout.group / 4);  // of a group
  // Of them, how many are added in 16 bits.
  static constexpr int kExact = std::min(kQuads, 32767 / (2 * 127 * kLayout.most()));
  static_assert(kExact > 0 && kQuads % kExact == 0);

  static __m256i load(const std::byte* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  /// Sixteen integers of 8 bits, widened: s or t of two groups side by side, of eight outputs.
  static __m256i pairs(const std::byte* p) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static __m256 halves(const std::byte* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  /// Each pair of 16-bit numbers becomes twice its first, or twice its second.
  static __m256i both(__m256i v, int which) {
    const __m256i first = _mm256_set1_epi32(0x01000100), low = _mm256_set1_epi32(0x02020202);
    const __m256i lanes = _mm256_setr_epi32(0, 0x04040404, 0x08080808, 0x0c0c0c0c, 0, 0x04040404,
                                            0x08080808, 0x0c0c0c0c);
    const __m256i from = which == 0 ? first : _mm256_add_epi8(first, low);
    return _mm256_shuffle_epi8(v, _mm256_add_epi8(lanes, from));
  }
  /// `bits` bits of every byte from `shift` on, moved to `to`.
  [[gnu::always_inline]] static __m256i cut(__m256i v, int shift, int to, int bits) {
    const __m256i mask = _mm256_set1_epi8(static_cast<char>(((1 << bits) - 1) << to));
    if (shift > to) v = _mm256_srli_epi16(v, shift - to);
    if (shift < to) v = _mm256_slli_epi16(v, to - shift);
    return _mm256_and_si256(v, mask);
  }
  /// Codes of inputs 4 * quad … of the 32 that begin at `codes`, of eight outputs.
  [[gnu::always_inline]] static __m256i codes_of(const std::byte* codes, int quad, int half) {
    const KPlace low = k_low_place(kLayout, quad);
    const __m256i bits = cut(load(codes + low.byte + 32 * half), low.shift, 0, kLayout.low_bits);
    if constexpr (kLayout.high_bits == 0) {
      return bits;
    } else {
      const KPlace high = k_high_place(kLayout, quad);
      return _mm256_or_si256(bits, cut(load(codes + high.byte + 32 * half), high.shift,
                                       kLayout.low_bits, kLayout.high_bits));
    }
  }
  /// Inputs i … i + 3 of row m and block b, for each output.
  [[gnu::always_inline]] __m256i inputs(int m, int64_t b, int64_t i) const {
    int32_t four;
    std::memcpy(&four, t_.codes + (m * t_.blocks + b) * kSuperInputs + i, sizeof(four));
    return _mm256_set1_epi32(four);
  }
  /// Sums of the inputs of groups 2 * pair and 2 * pair + 1.
  [[gnu::always_inline]] __m256i input_sums(int m, int64_t b, int64_t pair) const {
    int32_t two;
    std::memcpy(&two, t_.k_sums + (m * t_.blocks + b) * kLayout.groups() + 2 * pair, sizeof(two));
    return _mm256_set1_epi32(two);
  }

  [[gnu::always_inline]] static void clear(KSums<M, N>& sums) {
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) sums.s[m][n][0] = sums.s[m][n][1] = _mm256_setzero_si256();
  }

  [[gnu::always_inline]] void add_block(const std::byte* block, int64_t b,
                                        __m256 (&y)[M][N][2]) const {
    KSums<M, N> products, corrections;
    clear(products);
    clear(corrections);
    fetch_ahead<N>(block, t_.panel_bytes, kLayout.codes_at());
    for (int64_t pair = 0; pair < kLayout.groups() / 2; ++pair) {
      const int64_t from = kLayout.codes_at() + pair * kPairBytes;
      fetch_ahead<N>(block + from, t_.panel_bytes, kPairBytes);
      __m256i scales[N][2];
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n)
#pragma GCC unroll 2
        for (int half = 0; half < 2; ++half) {
          const std::byte* at = block + n * t_.panel_bytes + pair * 2 * kPanelOutputs + 16 * half;
          scales[n][half] = pairs(at + kLayout.scales_at());
          const __m256i minima = kLayout.minima ? pairs(at + kLayout.minima_at()) : scales[n][half];
#pragma GCC unroll 4
          for (int m = 0; m < M; ++m)
            add_in_order(corrections.s[m][n][half],
                         _mm256_madd_epi16(minima, input_sums(m, b, pair)));
        }
#pragma GCC unroll 2
      for (int g = 0; g < 2; ++g) add_group(block, b, pair, g, scales, products);
    }
    finish(block, b, products, corrections, y);
  }

  // Of two groups.
  static constexpr int64_t kPairBytes = 2 * kLayout.group * kLayout.code_bytes() / kBlockInputs;

  /// Group g of a pair, whose scales these are.
  [[gnu::always_inline]] void add_group(const std::byte* block, int64_t b, int64_t pair, int g,
                                        const __m256i (&scales)[N][2],
                                        KSums<M, N>& products) const {
    __m256i s[N][2];
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n)
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) s[n][half] = both(scales[n][half], g);
    const int64_t first = (2 * pair + g) * kLayout.group;  // input
#pragma GCC unroll 8
    for (int begin = 0; begin < kQuads; begin += kExact) {
      KSums<M, N> part;
#pragma GCC unroll 8
      for (int q = begin; q < begin + kExact; ++q) {
        // A group of 16 is the first or the second half of 32 inputs.
        const int quad = kQuads == 8 ? q : 4 * g + q;
        const std::byte* codes =
            block + kLayout.codes_at() + first / kBlockInputs * kLayout.code_bytes();
#pragma GCC unroll 2
        for (int n = 0; n < N; ++n)
#pragma GCC unroll 2
          for (int half = 0; half < 2; ++half) {
            const __m256i w = codes_of(codes + n * t_.panel_bytes, quad, half);
#pragma GCC unroll 4
            for (int m = 0; m < M; ++m) {
              const __m256i p = _mm256_maddubs_epi16(w, inputs(m, b, first + 4 * q));
              if (q == begin)
                part.s[m][n][half] = p;
              else
                add_short_in_order(part.s[m][n][half], p);
            }
          }
      }
#pragma GCC unroll 4
      for (int m = 0; m < M; ++m)
#pragma GCC unroll 2
        for (int n = 0; n < N; ++n)
#pragma GCC unroll 2
          for (int half = 0; half < 2; ++half)
            add_in_order(products.s[m][n][half], _mm256_madd_epi16(part.s[m][n][half], s[n][half]));
    }
  }

  [[gnu::always_inline]] void finish(const std::byte* block, int64_t b, const KSums<M, N>& products,
                                     const KSums<M, N>& corrections, __m256 (&y)[M][N][2]) const {
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n)
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        const std::byte* at = block + n * t_.panel_bytes + 16 * half;
        const __m256 scale = halves(at);
        const __m256 minimum = kLayout.minima ? halves(at + kPanelScaleBytes) : scale;
#pragma GCC unroll 4
        for (int m = 0; m < M; ++m) {
          const __m256 x = _mm256_set1_ps(t_.scales[m * t_.blocks + b]);
          const __m256i product = products.s[m][n][half], correction = corrections.s[m][n][half];
          __m256& out = y[m][n][half];
          if constexpr (kLayout.minima) {
            out = _mm256_fmadd_ps(_mm256_cvtepi32_ps(product), _mm256_mul_ps(scale, x), out);
            out = _mm256_fnmadd_ps(_mm256_cvtepi32_ps(correction), _mm256_mul_ps(minimum, x), out);
          } else {
            constexpr int kShift = std::countr_zero(static_cast<unsigned>(kLayout.offset));
            const __m256i exact = _mm256_sub_epi32(product, _mm256_slli_epi32(correction, kShift));
            out = _mm256_fmadd_ps(_mm256_cvtepi32_ps(exact), _mm256_mul_ps(scale, x), out);
          }
        }
      }
  }

  const PackedTile& t_;
};

template <WeightFormat F, int M, int N>
void k_tile_avx2(const PackedTile& t) {
  KTile<F, M, N>(t).run();
}

}  // namespace
}  // namespace chimera::kernels_impl
