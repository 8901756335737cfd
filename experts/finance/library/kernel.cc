#include "experts/finance/library/kernel.h"

#include <cmath>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace finance {
namespace {

constexpr int64_t kTile = kFinanceTile;

#if defined(__x86_64__)

/// Eight weights as floats.
__attribute__((target("avx2,fma"))) inline __m256 weights(const int8_t* q) {
  return _mm256_cvtepi32_ps(
      _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(q))));
}

/// Tiles x Rows accumulators in registers: a fused multiply-add takes 4 cycles and two start per
/// cycle, so 8 independent sums keep the units busy. Without the unrolling, -O2 leaves the
/// accumulators in memory and takes three times as long.
template <int Tiles, int Rows>
__attribute__((target("avx2,fma"))) void block(const Packed& w, int64_t tile, const float* x,
                                               int64_t x_stride, float* y, int64_t y_stride) {
  __m256 sum[Tiles][Rows];
  const int8_t* q[Tiles];
#pragma GCC unroll 8
  for (int t = 0; t < Tiles; ++t) {
    q[t] = w.q + (tile + t) * w.inputs * kTile;
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) sum[t][r] = _mm256_setzero_ps();
  }
  for (int64_t j = 0; j < w.inputs; ++j) {
#pragma GCC unroll 8
    for (int t = 0; t < Tiles; ++t) {
      const __m256 v = weights(q[t] + j * kTile);
#pragma GCC unroll 8
      for (int r = 0; r < Rows; ++r) {
        sum[t][r] = _mm256_fmadd_ps(v, _mm256_broadcast_ss(x + r * x_stride + j), sum[t][r]);
      }
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < Tiles; ++t) {
    const __m256 scale = _mm256_loadu_ps(w.scale + (tile + t) * kTile);
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) {
      _mm256_storeu_ps(y + r * y_stride + (tile + t) * kTile, _mm256_mul_ps(scale, sum[t][r]));
    }
  }
}

/// All tiles of [begin, end) for Rows rows, Tiles at a time.
template <int Tiles, int Rows>
__attribute__((target("avx2,fma"))) void strip(const Packed& w, int64_t begin, int64_t end,
                                               const float* x, int64_t x_stride, float* y,
                                               int64_t y_stride) {
  int64_t t = begin;
  for (; t + Tiles <= end; t += Tiles) block<Tiles, Rows>(w, t, x, x_stride, y, y_stride);
  for (; t < end; ++t) block<1, Rows>(w, t, x, x_stride, y, y_stride);
}

__attribute__((target("avx2,fma"))) void multiply_avx2(const Packed& w, int64_t begin, int64_t end,
                                                       const float* x, int64_t x_stride,
                                                       int64_t rows, float* y, int64_t y_stride) {
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4) {
    strip<2, 4>(w, begin, end, x + r * x_stride, x_stride, y + r * y_stride, y_stride);
  }
  for (; r + 2 <= rows; r += 2) {
    strip<4, 2>(w, begin, end, x + r * x_stride, x_stride, y + r * y_stride, y_stride);
  }
  for (; r < rows; ++r) {
    strip<8, 1>(w, begin, end, x + r * x_stride, x_stride, y + r * y_stride, y_stride);
  }
}

#endif

}  // namespace

void multiply_scalar(const Packed& w, int64_t begin, int64_t end, const float* x, int64_t x_stride,
                     int64_t rows, float* y, int64_t y_stride) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t t = begin; t < end; ++t) {
      const int8_t* q = w.q + t * w.inputs * kTile;
      for (int64_t l = 0; l < kTile; ++l) {
        float sum = 0.0f;
        for (int64_t j = 0; j < w.inputs; ++j) {
          sum = std::fma(static_cast<float>(q[j * kTile + l]), x[r * x_stride + j], sum);
        }
        y[r * y_stride + t * kTile + l] = w.scale[t * kTile + l] * sum;
      }
    }
  }
}

Multiply best_multiply() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return multiply_avx2;
#endif
  return multiply_scalar;
}

void swiglu(float* gate, const float* up, int64_t n) {
  for (int64_t i = 0; i < n; ++i) gate[i] = gate[i] / (1.0f + std::exp(-gate[i])) * up[i];
}

}  // namespace finance
