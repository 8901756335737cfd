// Several query rows that share a key/value head (attention_impl.h says in which order they
// compute). Private to this folder.
//
// Thread safety: pure functions; scratch memory is the caller's.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "compute/kernels/attention_impl.h"

namespace chimera::kernels_impl {

/// acc[m, 0..G*kWidth) += p[m, i] * v_i for M rows and n positions. Row strides: acc and v `width`,
/// p `ldp`.
template <class V, int M, int G>
[[gnu::always_inline]] inline void add_channels(const float* p, int64_t ldp, const float* v,
                                                int64_t width, int64_t n, float* acc) {
  typename V::Reg sums[M][G];
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
    for (int g = 0; g < G; ++g) sums[m][g] = V::load(acc + m * width + g * V::kWidth);
  for (int64_t i = 0; i < n; ++i, v += width) {
    typename V::Reg values[G];
#pragma GCC unroll 8
    for (int g = 0; g < G; ++g) {
      values[g] = V::load(v + g * V::kWidth);
      if constexpr (M > 1) V::keep_in_register(values[g]);
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const typename V::Reg weight = V::set1(p[m * ldp + i]);
#pragma GCC unroll 8
      for (int g = 0; g < G; ++g) sums[m][g] = V::fma(weight, values[g], sums[m][g]);
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
    for (int g = 0; g < G; ++g) V::store(acc + m * width + g * V::kWidth, sums[m][g]);
}

/// All channels of M rows.
template <class V, int M>
void add_values(const float* p, int64_t ldp, const float* v, int64_t width, int64_t n, float* acc) {
  if (n <= 0) return;
  constexpr int kGroups = M == 1 ? 8 : 2;  // as many sums as cover a multiply-add's latency
  int64_t c = 0;
  for (; c + kGroups * V::kWidth <= width; c += kGroups * V::kWidth)
    add_channels<V, M, kGroups>(p, ldp, v + c, width, n, acc + c);
  for (; c + V::kWidth <= width; c += V::kWidth)
    add_channels<V, M, 1>(p, ldp, v + c, width, n, acc + c);
  for (; c < width; ++c)
    for (int m = 0; m < M; ++m)
      for (int64_t i = 0; i < n; ++i)
        acc[m * width + c] = std::fma(p[m * ldp + i], v[i * width + c], acc[m * width + c]);
}

/// Query i is query head first_head + i % heads of row first_row + i / heads.
template <class V>
class AttentionBlock {
 public:
  AttentionBlock(const AttentionArgs& a, int64_t first_row, int64_t rows, int64_t first_head,
                 int64_t heads)
      : a_(a),
        first_row_(first_row),
        first_head_(first_head),
        heads_(heads),
        queries_(rows * heads),
        kv_head_(first_head / (a.heads / a.kv_heads)),
        span_{a.visible[first_row].first, a.visible[first_row + rows - 1].count},
        row_(score_row(span_.count - span_.first)),
        step_(attention_step(a)),
        scores_(a.scratch),
        q_(scores_ + queries_ * row_),
        out_(q_ + queries_ * a.head_dim),
        copied_(out_ + queries_ * a.v_dim) {
    for (int64_t i = 0; i < queries_; ++i) ranges_[i] = a.visible[first_row + i / heads];
  }

  void run() {
    for (int64_t i = 0; i < queries_; ++i)
      std::memcpy(q_ + i * a_.head_dim,
                  a_.q + ((first_row_ + i / heads_) * a_.heads + head(i)) * a_.head_dim,
                  static_cast<size_t>(a_.head_dim) * sizeof(float));
    for_each_step([&](VisibleRange at, int64_t begin, int64_t end) {
      copy(a_.k, a_.k_stride, a_.head_dim, at);
      int64_t i = begin;
      for (; i + V::kRows <= end; i += V::kRows) multiply<V::kRows>(at, i);
      for (; i < end; ++i) multiply<1>(at, i);
    });
    for (int64_t i = 0; i < queries_; ++i) {
      const VisibleRange seen = range(i);
      sums_[i] = softmax<V>(a_, head(i), weights(i, seen.first), seen.count - seen.first);
    }
    std::fill_n(out_, queries_ * a_.v_dim, 0.0f);
    for_each_step([&](VisibleRange at, int64_t begin, int64_t end) {
      copy(a_.v, a_.v_stride, a_.v_dim, at);
      int64_t i = begin;
      for (; i + kTogether <= end; i += kTogether) add<kTogether>(at, i);
      for (; i < end; ++i) add<1>(at, i);
    });
    for (int64_t i = 0; i < queries_; ++i) divide(i);
  }

 private:
  // Queries whose sums of two registers each leave a few for values and weights among 16.
  static constexpr int kTogether = 6;

  int64_t head(int64_t i) const { return first_head_ + i % heads_; }
  const VisibleRange& range(int64_t i) const { return ranges_[i]; }
  /// Score or weight of query i for a position.
  float* weights(int64_t i, int64_t position) const {
    return scores_ + i * row_ + position - span_.first;
  }

  /// op(positions, begin, end): queries [begin, end) see some of the positions.
  template <class Op>
  void for_each_step(Op op) {
    for (int64_t p = span_.first; p < span_.count; p += step_) {
      const VisibleRange at{p, std::min(p + step_, span_.count)};
      int64_t begin = 0;
      while (range(begin).count <= at.first) ++begin;
      int64_t end = queries_;
      while (end > begin && range(end - 1).first >= at.count) --end;
      if (begin < end) op(at, begin, end);
    }
  }

  /// Keys or values of these positions, side by side.
  void copy(const float* const* blocks, int64_t stride, int64_t width, VisibleRange at) {
    float* to = copied_;
    for_each_run(a_, at, [&](int64_t block, int64_t slot, int64_t run) {
      const float* from = blocks[block] + slot * stride + kv_head_ * width;
      for (int64_t i = 0; i < run; ++i, from += stride, to += width)
        std::memcpy(to, from, static_cast<size_t>(width) * sizeof(float));
    });
  }

  /// Products of M queries with the keys that were copied. Those that a query doesn't see as well:
  /// they are there, and nobody asks for them.
  template <int M>
  void multiply(VisibleRange at, int64_t i) {
    const int64_t dim = a_.head_dim;
    const float* q = q_ + i * dim;
    const float* k = copied_;
    float* to = weights(i, at.first);
    int64_t left = at.count - at.first;
    for (; left >= V::kCols; left -= V::kCols, k += V::kCols * dim, to += V::kCols)
      tile<V, M, V::kCols>(q, dim, k, dim, dim, to, row_);
    for (; left > 0; --left, k += dim, ++to) tile<V, M, 1>(q, dim, k, dim, dim, to, row_);
  }

  /// Values of M queries: together what all of them see, each alone what is before and behind it.
  template <int M>
  void add(VisibleRange at, int64_t i) {
    VisibleRange common = at;
    for (int64_t m = i; m < i + M; ++m) {
      common.first = std::max(common.first, range(m).first);
      common.count = std::min(common.count, range(m).count);
    }
    common.count = std::max(common.count, common.first);
    for (int64_t m = i; M > 1 && m < i + M; ++m)
      add_seen<1>(
          {std::max(at.first, range(m).first), std::min({at.count, common.first, range(m).count})},
          at.first, m);
    add_seen<M>(common, at.first, i);
    for (int64_t m = i; M > 1 && m < i + M; ++m)
      add_seen<1>(
          {std::max({at.first, common.count, range(m).first}), std::min(at.count, range(m).count)},
          at.first, m);
  }
  /// `copied`: the position of the first copied value.
  template <int M>
  void add_seen(VisibleRange seen, int64_t copied, int64_t i) {
    add_values<V, M>(weights(i, seen.first), row_, copied_ + (seen.first - copied) * a_.v_dim,
                     a_.v_dim, seen.count - seen.first, out_ + i * a_.v_dim);
  }

  void divide(int64_t i) {
    const float* from = out_ + i * a_.v_dim;
    float* to = a_.out + ((first_row_ + i / heads_) * a_.heads + head(i)) * a_.v_dim;
    const typename V::Reg total = V::set1(sums_[i]);
    int64_t c = 0;
    for (; c + V::kWidth <= a_.v_dim; c += V::kWidth)
      V::store(to + c, V::div(V::load(from + c), total));
    for (; c < a_.v_dim; ++c) to[c] = from[c] / sums_[i];
  }

  const AttentionArgs& a_;
  const int64_t first_row_, first_head_, heads_, queries_, kv_head_;
  const VisibleRange span_;  // of all queries
  const int64_t row_;        // floats between the scores of two queries
  const int64_t step_;       // positions that are copied at a time
  float* const scores_;      // [queries, row_]
  float* const q_;           // [queries, head_dim]
  float* const out_;         // [queries, v_dim]
  float* const copied_;      // [step_, head_dim or v_dim]
  VisibleRange ranges_[kAttentionQueries];
  float sums_[kAttentionQueries];  // of a query's weights
};

template <class V>
void attention(const AttentionArgs& a, int64_t h0, int64_t h1) {
  // Fewer do not make up for the copy.
  constexpr int64_t kLeastQueries = 4;
  const int64_t group = a.heads / a.kv_heads;
  for (int64_t h = h0; h < h1;) {
    const int64_t end = std::min({h1, (h / group + 1) * group, h + kAttentionQueries});
    const int64_t rows = kAttentionQueries / (end - h);
    if (a.rows * (end - h) < kLeastQueries) {
      for (int64_t r = 0; r < a.rows; ++r)
        for (int64_t i = h; i < end; ++i) attention_row<V>(a, r, i);
    } else {
      for (int64_t r = 0; r < a.rows; r += rows)
        AttentionBlock<V>(a, r, std::min(rows, a.rows - r), h, end - h).run();
    }
    h = end;
  }
}

}  // namespace chimera::kernels_impl
