// AVX-512 (F, BW, DQ, VL): 16 lanes are one register.
// GCC 12 takes the deliberately undefined operands inside its own AVX-512 header for mistakes
// (GCC bug 105593); the warnings are off for that header's lines only.
#pragma GCC diagnostic push
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#pragma GCC diagnostic pop

#include "compute/kernels/impl.h"
#include "compute/kernels/packed_avx2.h"
#include "compute/kernels/rank_panels_impl.h"
#include "compute/kernels/x86.h"

namespace chimera {
namespace {

struct Avx512 {
  using Reg = __m512;
  static constexpr int kWidth = 16;
  // 32 registers: 4 x 4 outputs are 16 sums and 4 weights; 16 FMAs for 8 loads.
  static constexpr int kRows = 4;
  static constexpr int kCols = 4;
  static constexpr int kGemvCols = 8;  // 8 chains cover 2 ports x 4 cycles
  static constexpr int kWidenFromRows = 16;

  static Reg zero() { return _mm512_setzero_ps(); }
  static Reg set1(float v) { return _mm512_set1_ps(v); }
  static Reg load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, Reg r) { _mm512_storeu_ps(p, r); }
  static float widen(uint16_t v) {
    return _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(static_cast<int>(v) << 16)));
  }
  static Reg load_bf16(const uint16_t* p) {
    const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
  }
  static Reg load_f16(const Half* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static void keep_in_register(Reg& r) { asm("" : "+v"(r)); }
  static Reg fma(Reg a, Reg b, Reg c) { return _mm512_fmadd_ps(a, b, c); }
  static Reg add(Reg a, Reg b) { return _mm512_add_ps(a, b); }
  static Reg sub(Reg a, Reg b) { return _mm512_sub_ps(a, b); }
  static Reg mul(Reg a, Reg b) { return _mm512_mul_ps(a, b); }
  static Reg div(Reg a, Reg b) { return _mm512_div_ps(a, b); }
  static Reg max(Reg a, Reg b) { return _mm512_max_ps(a, b); }
  static Reg select_greater(Reg a, Reg b, Reg yes, Reg no) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_GT_OQ), no, yes);
  }
  static Reg select_nan(Reg a, Reg yes, Reg no) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), no, yes);
  }
  static Reg scale_by_pow2(Reg p, Reg t) {
    const __m512i n = _mm512_slli_epi32(_mm512_castps_si512(t), 23);
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p), n));
  }
  static __m256 s8(Reg a) {
    return _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
  }
  static float fold(const Reg (&a)[1]) { return fold_s8(s8(a[0])); }
  /// y[m, n] = the sum of a[m][n], 4 x 4 of them, by the same additions with a third of the
  /// instructions: each pair of registers becomes one that holds the next partial sums of both.
  static void fold16(const Reg (&a)[4][4][1], float* y, int64_t ldy) {
    Reg s4[4];  // [m]: four partial sums of every n, n by n
    for (int m = 0; m < 4; ++m) {
      const Reg s8_01 = add(_mm512_shuffle_f32x4(a[m][0][0], a[m][1][0], 0x44),
                            _mm512_shuffle_f32x4(a[m][0][0], a[m][1][0], 0xee));
      const Reg s8_23 = add(_mm512_shuffle_f32x4(a[m][2][0], a[m][3][0], 0x44),
                            _mm512_shuffle_f32x4(a[m][2][0], a[m][3][0], 0xee));
      s4[m] =
          add(_mm512_shuffle_f32x4(s8_01, s8_23, 0x88), _mm512_shuffle_f32x4(s8_01, s8_23, 0xdd));
    }
    const Reg s2_01 = fold_pairs(s4[0], s4[1]);  // per n: two of m = 0, two of m = 1
    const Reg s2_23 = fold_pairs(s4[2], s4[3]);
    const Reg by_n =
        add(_mm512_shuffle_ps(s2_01, s2_23, 0x88), _mm512_shuffle_ps(s2_01, s2_23, 0xdd));
    const __m512i transposed =
        _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const Reg by_m = _mm512_permutexvar_ps(transposed, by_n);
    _mm_storeu_ps(y, _mm512_castps512_ps128(by_m));
    _mm_storeu_ps(y + ldy, _mm512_extractf32x4_ps(by_m, 1));
    _mm_storeu_ps(y + 2 * ldy, _mm512_extractf32x4_ps(by_m, 2));
    _mm_storeu_ps(y + 3 * ldy, _mm512_extractf32x4_ps(by_m, 3));
  }
  static Reg fold_pairs(Reg a, Reg b) {
    const __m512d x = _mm512_castps_pd(a), y = _mm512_castps_pd(b);
    return add(_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)),
               _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));
  }
  static void fold4(const Reg (*a)[1], float* out) {
    fold4_s8(s8(a[0][0]), s8(a[1][0]), s8(a[2][0]), s8(a[3][0]), out);
  }
};

}  // namespace

const Kernels kAvx512Kernels =
    kernels_impl::make_kernels<Avx512, kernels_impl::PackedAvx2>(Isa::kAvx512, "avx512");
const ExpandRanks kAvx512ExpandRanks = kernels_impl::expand_ranks_in<Avx512>;

}  // namespace chimera
