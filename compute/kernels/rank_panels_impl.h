// expand_ranks, written once over a vector type V (impl.h says what V is). Private to this folder.
//
// Thread safety: pure functions.
#pragma once

#include <algorithm>

#include "compute/kernels/matmul.h"
#include "compute/kernels/rank_panels.h"

namespace chimera::kernels_impl {

/// M rows of y against P whole panels, whose sums stay in registers from the first rank to the
/// last.
template <class V, int M, int P, class W>
[[gnu::always_inline]] inline void expand_tile(const float* low, int64_t ranks, const W* b,
                                               float* y, int64_t ldy) {
  using R = typename V::Reg;
  R sums[M][P][kParts<V>];
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p)
#pragma GCC unroll 16
      for (int i = 0; i < kParts<V>; ++i)
        sums[m][p][i] = V::load(y + m * ldy + p * kRankPanel + i * V::kWidth);
  for (int64_t k = 0; k < ranks; ++k) {
    R by[M];
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) by[m] = V::set1(low[m * ranks + k]);
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p)
#pragma GCC unroll 16
      for (int i = 0; i < kParts<V>; ++i) {
        const R w = load<V>(b + (p * ranks + k) * kRankPanel + i * V::kWidth);
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m) sums[m][p][i] = V::fma(by[m], w, sums[m][p][i]);
      }
  }
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p)
#pragma GCC unroll 16
      for (int i = 0; i < kParts<V>; ++i)
        V::store(y + m * ldy + p * kRankPanel + i * V::kWidth, sums[m][p][i]);
}

/// All rows against P panels: two rows share what is loaded of them.
template <class V, int P, class W>
void expand_panels(const float* low, int64_t rows, int64_t ranks, const W* b, float* y,
                   int64_t ldy) {
  int64_t r = 0;
  for (; r + 2 <= rows; r += 2) expand_tile<V, 2, P>(low + r * ranks, ranks, b, y + r * ldy, ldy);
  for (; r < rows; ++r) expand_tile<V, 1, P>(low + r * ranks, ranks, b, y + r * ldy, ldy);
}

/// The last panel, of fewer outputs than the others.
template <class V, class W>
void expand_narrow(const float* low, int64_t rows, int64_t ranks, const W* b, int64_t width,
                   float* y, int64_t ldy) {
  for (int64_t r = 0; r < rows; ++r, low += ranks, y += ldy) {
    alignas(64) float sums[kRankPanel] = {};
    std::copy_n(y, width, sums);
    for (int64_t k = 0; k < ranks; ++k) {
      alignas(64) W of_rank[kRankPanel] = {};
      std::copy_n(b + k * width, width, of_rank);
      expand_tile<V, 1, 1>(low + k, 1, of_rank, sums, kRankPanel);
    }
    std::copy_n(sums, width, y);
  }
}

template <class V, class W>
void expand_of(const float* low, int64_t rows, const Matrix& b, int64_t n0, int64_t n1, float* y,
               int64_t ldy) {
  const int64_t ranks = b.rows;
  const auto* panel = static_cast<const W*>(b.data) + n0 * ranks;
  int64_t n = n0;
  constexpr int64_t kTwo = 2 * kRankPanel;
  constexpr int64_t kFour = 4 * kRankPanel;
  // A row alone needs more panels for as many sums as cover the latency of a multiply-add.
  for (; rows == 1 && n + kFour <= n1; n += kFour, panel += kFour * ranks)
    expand_tile<V, 1, 4>(low, ranks, panel, y + n, ldy);
  for (; n + kTwo <= n1; n += kTwo, panel += kTwo * ranks)
    expand_panels<V, 2>(low, rows, ranks, panel, y + n, ldy);
  if (n + kRankPanel <= n1) {
    expand_panels<V, 1>(low, rows, ranks, panel, y + n, ldy);
    n += kRankPanel;
    panel += kRankPanel * ranks;
  }
  if (n < n1) expand_narrow<V>(low, rows, ranks, panel, n1 - n, y + n, ldy);
}

template <class V>
void expand_ranks_in(const float* low, int64_t rows, const Matrix& b, int64_t n0, int64_t n1,
                     float* y, int64_t ldy) {
  if (b.format == WeightFormat::kBF16) return expand_of<V, uint16_t>(low, rows, b, n0, n1, y, ldy);
  if (b.format == WeightFormat::kF16) return expand_of<V, Half>(low, rows, b, n0, n1, y, ldy);
  expand_of<V, float>(low, rows, b, n0, n1, y, ldy);
}

}  // namespace chimera::kernels_impl
