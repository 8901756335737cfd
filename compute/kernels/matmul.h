// The matrix product of the kernels. Private to this folder; impl.h says what V
// is and why every variant gives the same bits.
//
// Thread safety: pure functions.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "compute/kernels/kernels.h"

namespace chimera::kernels_impl {

constexpr int kLanes = 16;

// Inputs handled per pass over a weight tile: 1024 floats x (3..4 weight rows + 2..4 input rows)
// fill the smallest common L1 (32 KiB) without overflowing it.
constexpr int64_t kDepthBlock = 1024;
// Floats between widened weight rows: a cache line more than they have, as loads of one step that
// differ by whole pages (of input rows that often do too) get in each other's way: 4-15 % of a
// product of 64 rows.
constexpr int64_t kWidenedStride = kDepthBlock + kLanes;
// Input rows that share one widened weight tile: 32 x 1024 floats stay within half of a 256 KiB L2.
constexpr int64_t kRowBlock = 32;

template <class V>
constexpr int kParts = kLanes / V::kWidth;

template <class V>
inline typename V::Reg load(const float* p) {
  return V::load(p);
}
template <class V>
inline typename V::Reg load(const uint16_t* p) {
  return V::load_bf16(p);
}
template <class V>
inline typename V::Reg load(const Half* p) {
  return V::load_f16(p);
}

template <class V>
inline float widen(uint16_t v) {
  return V::widen(v);
}
template <class V>
inline float widen(Half v) {
  return f16_to_f32(v.bits);
}

// Fetching ahead: rows of small models are too short for the prefetchers of the hardware to find
// their stride, and pages of 4 KiB end their streams. While the first register tile of a column is
// computed, the weights of the next are asked for. Rows of at least 2 KiB do without.
template <class W>
constexpr int64_t kAheadDepth = 2048 / sizeof(W);
// How far ahead each of three to eight streams of weights is asked for that are read once. (From
// 512 to 1,024 bytes it made no difference; asking for nothing was slower in pages of 4 KiB.)
template <class W>
constexpr int64_t kAheadElements = 768 / sizeof(W);

/// Nothing is read next.
struct NothingAhead {
  template <int N>
  [[gnu::always_inline]] void fetch(int64_t) const {}
};

/// Weight rows, `ldw` elements apart, that are read next.
template <class W>
struct RowsAhead {
  const W* w;
  int64_t ldw;

  /// Asks for the cache lines of N rows that begin with element k.
  template <int N>
  [[gnu::always_inline]] void fetch(int64_t k) const {
    constexpr int64_t kLine = 64 / sizeof(W);
    if (k % kLine != 0) return;
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) __builtin_prefetch(w + n * ldw + k);
  }
};

/// Running sums of one register tile, and their place in memory between depth blocks.
template <class V, int M, int N>
struct Sums {
  typename V::Reg s[M][N][kParts<V>];

  [[gnu::always_inline]] void clear() {
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n)
#pragma GCC unroll 16
        for (int p = 0; p < kParts<V>; ++p) s[m][n][p] = V::zero();
  }
  [[gnu::always_inline]] void restore(const float* from) {
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n)
#pragma GCC unroll 16
        for (int p = 0; p < kParts<V>; ++p)
          s[m][n][p] = V::load(from + (m * N + n) * kLanes + p * V::kWidth);
  }
  [[gnu::always_inline]] void save(float* to) const {
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n)
#pragma GCC unroll 16
        for (int p = 0; p < kParts<V>; ++p)
          V::store(to + (m * N + n) * kLanes + p * V::kWidth, s[m][n][p]);
  }
  [[gnu::always_inline]] void fold(float* y, int64_t ldy) const {
    if constexpr (M == 4 && N == 4 && kParts<V> == 1) return V::fold16(s, y, ldy);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      if constexpr (N % 4 == 0) {
#pragma GCC unroll 2
        for (int n = 0; n < N; n += 4) V::fold4(&s[m][n], y + m * ldy + n);
      } else {
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) y[m * ldy + n] = V::fold(s[m][n]);
      }
    }
  }

  /// Adds 16 inputs of M rows times N weight rows.
  template <class W>
  [[gnu::always_inline]] void step(const float* x, int64_t ldx, const W* w, int64_t ldw) {
#pragma GCC unroll 16
    for (int p = 0; p < kParts<V>; ++p) {
      typename V::Reg wr[N];
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) {
        typename V::Reg r = load<V>(w + n * ldw + p * V::kWidth);
        // Loaded once for all M rows; the compiler would fold a load into every FMA instead, and
        // loads, not FMAs, would set the pace. (An element of wr would get a home in memory.)
        if constexpr (M > 1) V::keep_in_register(r);
        wr[n] = r;
      }
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) {
        const typename V::Reg xr = V::load(x + m * ldx + p * V::kWidth);
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) s[m][n][p] = V::fma(xr, wr[n], s[m][n][p]);
      }
    }
  }

  /// Adds `depth` inputs, the last incomplete group of 16 padded with zeros.
  template <class W, class Ahead = NothingAhead>
  [[gnu::always_inline]] void add(const float* x, int64_t ldx, const W* w, int64_t ldw,
                                  int64_t depth, Ahead ahead = {}) {
    int64_t k = 0;
    for (; k + kLanes <= depth; k += kLanes) {
      ahead.template fetch<N>(k);
      step(x + k, ldx, w + k, ldw);
    }
    if (k == depth) return;
    alignas(64) float xt[M * kLanes] = {};
    alignas(64) W wt[N * kLanes] = {};
    const size_t left = static_cast<size_t>(depth - k);
    for (int m = 0; m < M; ++m) std::memcpy(xt + m * kLanes, x + m * ldx + k, left * sizeof(float));
    for (int n = 0; n < N; ++n) std::memcpy(wt + n * kLanes, w + n * ldw + k, left * sizeof(W));
    step(xt, kLanes, wt, kLanes);
  }
};

/// y[M, N] = x[M, depth] * w[N, depth]^T.
template <class V, int M, int N, class W>
void tile(const float* x, int64_t ldx, const W* w, int64_t ldw, int64_t depth, float* y,
          int64_t ldy) {
  Sums<V, M, N> sums;
  sums.clear();
  sums.add(x, ldx, w, ldw, depth);
  sums.fold(y, ldy);
}

/// Some of the inputs of a product, and where they stand among all.
struct DepthBlock {
  int64_t depth;
  bool first, last;
};

/// One depth block of a tile: `saved` carries the sums from block to block. Inlined, as a call with
/// this many arguments costs a tile of 256 inputs up to 7 % of its time.
template <class V, int M, int N, class W, class Ahead>
[[gnu::always_inline]] inline void tile_block(const float* x, int64_t ldx, const W* w, int64_t ldw,
                                              DepthBlock block, Ahead ahead, float* saved, float* y,
                                              int64_t ldy) {
  Sums<V, M, N> sums;
  if (block.first)
    sums.clear();
  else
    sums.restore(saved);
  sums.add(x, ldx, w, ldw, block.depth, ahead);
  if (block.last)
    sums.fold(y, ldy);
  else
    sums.save(saved);
}

/// Rows [0, m) against N weight rows and one depth block, R rows at a time (1, 2 or 4). The first
/// tile fetches ahead.
template <class V, int R, int N, class W, class Ahead>
void rows_block(const float* x, int64_t m, int64_t ldx, const W* w, int64_t ldw, DepthBlock block,
                Ahead ahead, float* saved, float* y, int64_t ldy) {
  const auto first_tile = [&]<int M>(std::integral_constant<int, M>) {
    if constexpr (M <= R) tile_block<V, M, N>(x, ldx, w, ldw, block, ahead, saved, y, ldy);
  };
  int64_t i = std::min<int64_t>(m, R);
  if (i == 4) {
    first_tile(std::integral_constant<int, 4>());
  } else if (i == 3) {
    first_tile(std::integral_constant<int, 3>());
  } else if (i == 2) {
    first_tile(std::integral_constant<int, 2>());
  } else {
    first_tile(std::integral_constant<int, 1>());
  }
  constexpr NothingAhead kNothing;
  float* state = saved + i * N * kLanes;
  if constexpr (R >= 4) {
    for (; i + 4 <= m; i += 4, state += 4 * N * kLanes)
      tile_block<V, 4, N>(x + i * ldx, ldx, w, ldw, block, kNothing, state, y + i * ldy, ldy);
  }
  if constexpr (R >= 2) {
    for (; i + 2 <= m; i += 2, state += 2 * N * kLanes)
      tile_block<V, 2, N>(x + i * ldx, ldx, w, ldw, block, kNothing, state, y + i * ldy, ldy);
  }
  for (; i < m; ++i, state += N * kLanes)
    tile_block<V, 1, N>(x + i * ldx, ldx, w, ldw, block, kNothing, state, y + i * ldy, ldy);
}

/// Widens rows of `depth` weights of two bytes into `out` (row stride kWidenedStride).
template <class V, class W>
void widen_rows(const W* w, int64_t ldw, int64_t rows, int64_t depth, float* out) {
  for (int64_t n = 0; n < rows; ++n) {
    const W* from = w + n * ldw;
    float* to = out + n * kWidenedStride;
    int64_t k = 0;
    for (; k + V::kWidth <= depth; k += V::kWidth) V::store(to + k, load<V>(from + k));
    for (; k < depth; ++k) to[k] = widen<V>(from[k]);
  }
}

/// N weight rows at a time, kept hot in L1 (widened once, where that pays) for all rows of a block.
/// `more`: the rows that follow them are next.
template <class V, int R, int N, class W>
void matmul_tile_column(const float* x, int64_t m, int64_t ldx, const W* w, int64_t ldw, bool more,
                        float* y, int64_t ldy) {
  constexpr bool kNarrow = sizeof(W) < sizeof(float);
  alignas(64) float saved[kRowBlock * N * kLanes];
  alignas(64) float widened[kNarrow ? N * kWidenedStride : 1];
  static_assert(V::kWidenFromRows > R, "widened blocks are at most kDepthBlock deep");
  const bool widen = kNarrow && m >= V::kWidenFromRows;
  // The weights of a single register tile are used once.
  const int64_t most = m <= R ? ldw : kDepthBlock;
  for (int64_t k = 0; k < ldw; k += most) {
    const int64_t depth = std::min(most, ldw - k);
    const DepthBlock block{depth, k == 0, k + depth == ldw};
    const auto multiply = [&](const auto* from, int64_t stride) {
      if (depth <= kAheadDepth<W> && (more || !block.last)) {
        const RowsAhead<W> ahead{block.last ? w + N * ldw : w + k + depth, ldw};
        rows_block<V, R, N>(x + k, m, ldx, from, stride, block, ahead, saved, y, ldy);
      } else {
        rows_block<V, R, N>(x + k, m, ldx, from, stride, block, NothingAhead(), saved, y, ldy);
      }
    };
    if constexpr (kNarrow) {
      if (widen) {
        widen_rows<V>(w + k, ldw, N, depth, widened);
        multiply(widened, kWidenedStride);
        continue;
      }
    }
    multiply(w + k, ldw);
  }
}

template <class V, int R, int N, class W>
void matmul_rows(const float* x, int64_t m, int64_t ldx, const Matrix& w, int64_t n0, int64_t n1,
                 float* y, int64_t ldy) {
  const auto* row = static_cast<const W*>(w.data) + n0 * w.cols;
  y += n0;
  int64_t left = n1 - n0;
  for (; left >= N; left -= N, row += N * w.cols, y += N)
    matmul_tile_column<V, R, N>(x, m, ldx, row, w.cols, left >= 2 * N, y, ldy);
  for (; left > 0; --left, row += w.cols, ++y)
    matmul_tile_column<V, R, 1>(x, m, ldx, row, w.cols, false, y, ldy);
}

/// M rows of inputs - one or two, which wait for memory - against `n` weight rows. N weight rows
/// are in work at once, each of another part of the matrix: N streams that go on where a row ends.
/// (Rows side by side are streams that end with every row, which cost a third of the bandwidth
/// where rows are pages of 4 KiB, and half of it where they are half a page.)
template <class V, int M, int N, class W>
void matmul_streams(const float* x, int64_t ldx, const W* w, int64_t cols, int64_t n, float* y,
                    int64_t ldy) {
  const int64_t part = n / N;
  const int64_t stride = part * cols;
  for (int64_t i = 0; i < part; ++i, w += cols, ++y) {
    Sums<V, M, N> sums;
    sums.clear();
    sums.add(x, ldx, w, stride, cols, RowsAhead<W>{w + kAheadElements<W>, stride});
    alignas(64) float out[M * N];
    sums.fold(out, N);
    for (int m = 0; m < M; ++m)
      for (int j = 0; j < N; ++j) y[m * ldy + j * part] = out[m * N + j];
  }
  w += (N - 1) * stride;
  y += (N - 1) * part;
  for (int64_t left = n - N * part; left > 0; --left, w += cols, ++y)
    tile<V, M, 1>(x, ldx, w, cols, cols, y, ldy);
}

template <class V, class W>
void matmul_of(const float* x, int64_t m, int64_t ldx, const Matrix& w, int64_t n0, int64_t n1,
               float* y, int64_t ldy) {
  const auto* rows = static_cast<const W*>(w.data) + n0 * w.cols;
  if (m == 1) return matmul_streams<V, 1, V::kGemvCols>(x, ldx, rows, w.cols, n1 - n0, y + n0, ldy);
  if constexpr (V::kRows >= 2) {
    if (m == 2) return matmul_streams<V, 2, V::kCols>(x, ldx, rows, w.cols, n1 - n0, y + n0, ldy);
  }
  for (int64_t i = 0; i < m; i += kRowBlock)
    matmul_rows<V, V::kRows, V::kCols, W>(x + i * ldx, std::min(kRowBlock, m - i), ldx, w, n0, n1,
                                          y + i * ldy, ldy);
}

}  // namespace chimera::kernels_impl
