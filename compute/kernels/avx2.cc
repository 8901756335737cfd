// AVX2 + FMA: 16 lanes are two registers of 8.
#include <immintrin.h>

#include "compute/kernels/impl.h"
#include "compute/kernels/packed_avx2.h"
#include "compute/kernels/rank_panels_impl.h"
#include "compute/kernels/x86.h"

namespace chimera {
namespace {

struct Avx2 {
  using Reg = __m256;
  static constexpr int kWidth = 8;
  // 16 registers: 2 x 3 outputs of two registers are 12 sums, 3 weights, 1 input. 6 FMAs for 5
  // loads keep both FMA ports busy, and 12 chains cover their latency of 4-5 cycles.
  static constexpr int kRows = 2;
  static constexpr int kCols = 3;
  static constexpr int kGemvCols = 4;  // 8 chains; four memory streams suit the prefetchers
  static constexpr int kWidenFromRows = 8;

  static Reg zero() { return _mm256_setzero_ps(); }
  static Reg set1(float v) { return _mm256_set1_ps(v); }
  static Reg load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, Reg r) { _mm256_storeu_ps(p, r); }
  static float widen(uint16_t v) {
    return _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(static_cast<int>(v) << 16)));
  }
  static Reg load_bf16(const uint16_t* p) {
    const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
  }
  static Reg load_f16(const Half* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static void keep_in_register(Reg& r) { asm("" : "+x"(r)); }
  static Reg fma(Reg a, Reg b, Reg c) { return _mm256_fmadd_ps(a, b, c); }
  static Reg add(Reg a, Reg b) { return _mm256_add_ps(a, b); }
  static Reg sub(Reg a, Reg b) { return _mm256_sub_ps(a, b); }
  static Reg mul(Reg a, Reg b) { return _mm256_mul_ps(a, b); }
  static Reg div(Reg a, Reg b) { return _mm256_div_ps(a, b); }
  static Reg max(Reg a, Reg b) { return _mm256_max_ps(a, b); }
  static Reg select_greater(Reg a, Reg b, Reg yes, Reg no) {
    return _mm256_blendv_ps(no, yes, _mm256_cmp_ps(a, b, _CMP_GT_OQ));
  }
  static Reg select_nan(Reg a, Reg yes, Reg no) {
    return _mm256_blendv_ps(no, yes, _mm256_cmp_ps(a, a, _CMP_UNORD_Q));
  }
  static Reg scale_by_pow2(Reg p, Reg t) {
    const __m256i n = _mm256_slli_epi32(_mm256_castps_si256(t), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), n));
  }
  static float fold(const Reg (&a)[2]) { return fold_s8(_mm256_add_ps(a[0], a[1])); }
  static void fold4(const Reg (*a)[2], float* out) {
    fold4_s8(_mm256_add_ps(a[0][0], a[0][1]), _mm256_add_ps(a[1][0], a[1][1]),
             _mm256_add_ps(a[2][0], a[2][1]), _mm256_add_ps(a[3][0], a[3][1]), out);
  }
};

}  // namespace

const Kernels kAvx2Kernels =
    kernels_impl::make_kernels<Avx2, kernels_impl::PackedAvx2>(Isa::kAvx2, "avx2");
const ExpandRanks kAvx2ExpandRanks = kernels_impl::expand_ranks_in<Avx2>;

}  // namespace chimera
