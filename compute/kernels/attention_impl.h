// Softmax attention, written once over a small vector type V (impl.h). Private to this folder.
//
// An output has one order of operations, whoever else is in the call:
//
//   scores   as products (16 partial sums, folded), times `scale`
//   softmax  e^(score - largest); their sum in 16 partial ones by position less the first visible
//   values   one fused multiply-add per position, ascending, at last divided by that sum
//
// A single query row reads keys and values where they lie. Of several (a prompt; heads that share a
// key/value head) up to kAttentionQueries go together: some positions at a time are copied side by
// side, so that they are read once for all and meet no other's lines in the first-level cache
// (in the key/value cache rows are powers of two apart).
//
// Thread safety: pure functions; scratch memory is the caller's.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "compute/kernels/kernels.h"
#include "compute/kernels/matmul.h"
#include "compute/kernels/vector_math.h"

namespace chimera::kernels_impl {

/// Floats from one query's scores to the next's. (Not a power of two for the usual numbers of
/// positions, so that those of several queries meet in no line of a cache.)
[[gnu::always_inline]] constexpr int64_t score_row(int64_t positions) {
  return (positions + kLanes - 1) / kLanes * kLanes + kLanes;
}

/// Positions that are copied at a time: 12 KiB of keys or values, a third of a first-level cache,
/// and a multiple of the register tiles.
[[gnu::always_inline]] inline int64_t attention_step(const AttentionArgs& a) {
  constexpr int64_t kFloats = 3 * 1024;
  constexpr int64_t kTiles = 12;
  return std::clamp<int64_t>(kFloats / std::max(a.head_dim, a.v_dim) / kTiles, 1, 4) * kTiles;
}

/// Calls op(block, slot, run): positions [first, count) in order, cut at block boundaries.
template <class Op>
[[gnu::always_inline]] inline void for_each_run(const AttentionArgs& a, VisibleRange range, Op op) {
  for (int64_t pos = range.first; pos < range.count;) {
    const int64_t block = pos / a.block_tokens;
    const int64_t slot = pos % a.block_tokens;
    const int64_t run = std::min(a.block_tokens - slot, range.count - pos);
    op(block, slot, run);
    pos += run;
  }
}

/// scores[i] *= scale; returns the largest.
template <class V>
float scale_scores(float* scores, int64_t n, float scale) {
  const typename V::Reg by = V::set1(scale);
  constexpr float kLowest = -std::numeric_limits<float>::infinity();
  typename V::Reg top = V::set1(kLowest);
  for_each_group<V>(n, [&](int64_t i, int64_t c) {
    const typename V::Reg s = V::mul(load_some<V>(scores + i, c, kLowest), by);
    store_some<V>(scores + i, c, s);
    top = V::max(top, s);
  });
  alignas(64) float lanes[V::kWidth];
  V::store(lanes, top);
  return *std::max_element(lanes, lanes + V::kWidth);
}

/// scores[i] = e^(scores[i] - top); returns their sum, lane i mod 16 by lane.
template <class V>
float exponentials(float* scores, int64_t n, float top) {
  constexpr float kLowest = -std::numeric_limits<float>::infinity();
  const typename V::Reg shift = V::set1(top);
  typename V::Reg sums[kParts<V>];
  for (int p = 0; p < kParts<V>; ++p) sums[p] = V::zero();
  const auto add_lanes = [&](float* lanes) {
#pragma GCC unroll 2
    for (int p = 0; p < kParts<V>; ++p) {
      const typename V::Reg e = exp_of<V>(V::sub(V::load(lanes + p * V::kWidth), shift));
      V::store(lanes + p * V::kWidth, e);
      sums[p] = V::add(sums[p], e);
    }
  };
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) add_lanes(scores + i);
  if (i < n) {
    alignas(64) float tail[kLanes];
    for (int64_t j = 0; j < kLanes; ++j) tail[j] = i + j < n ? scores[i + j] : kLowest;
    add_lanes(tail);
    std::copy_n(tail, n - i, scores + i);
  }
  return V::fold(sums);
}

/// e^x of one number, the same bits as a lane of exp_of.
template <class V>
float exp_one(float x) {
  alignas(64) float lanes[V::kWidth];
  V::store(lanes, exp_of<V>(V::set1(x)));
  return lanes[0];
}

/// Products to weights that are yet to be divided by what is returned: the sum of the softmax of
/// query head `h`.
template <class V>
float softmax(const AttentionArgs& a, int64_t h, float* scores, int64_t n) {
  float top = scale_scores<V>(scores, n, a.scale);
  if (a.sinks != nullptr) top = std::max(top, a.sinks[h]);
  float sum = exponentials<V>(scores, n, top);
  if (a.sinks != nullptr) sum += exp_one<V>(a.sinks[h] - top);
  return sum;
}

// One row.

/// scores[i] = q . k_{first+i}.
template <class V>
void row_scores(const AttentionArgs& a, VisibleRange range, const float* q, int64_t kv_head,
                float* scores) {
  constexpr int kKeys = V::kGemvCols;
  const int64_t stride = a.k_stride;
  for_each_run(a, range, [&](int64_t block, int64_t slot, int64_t run) {
    const float* k = a.k[block] + slot * stride + kv_head * a.head_dim;
    int64_t i = 0;
    for (; i + kKeys <= run; i += kKeys)
      tile<V, 1, kKeys>(q, 0, k + i * stride, stride, a.head_dim, scores + i, 0);
    for (; i < run; ++i) tile<V, 1, 1>(q, 0, k + i * stride, stride, a.head_dim, scores + i, 0);
    scores += run;
  });
}

/// What a row makes of its values: weights p, over `sum`.
struct WeightedSum {
  VisibleRange range;
  const float* p;
  float sum;
};

/// out[0..G*kWidth) = sum_i p[i] * v_i, in position order, over `sum`.
template <class V, int G>
void weighted_values(const AttentionArgs& a, const WeightedSum& row, int64_t offset, float* out) {
  typename V::Reg acc[G];
#pragma GCC unroll 8
  for (int g = 0; g < G; ++g) acc[g] = V::zero();
  const int64_t stride = a.v_stride;
  const float* p = row.p;
  for_each_run(a, row.range, [&](int64_t block, int64_t slot, int64_t run) {
    const float* v = a.v[block] + slot * stride + offset;
    for (int64_t i = 0; i < run; ++i, v += stride) {
      const typename V::Reg weight = V::set1(*p++);
#pragma GCC unroll 8
      for (int g = 0; g < G; ++g) acc[g] = V::fma(weight, V::load(v + g * V::kWidth), acc[g]);
    }
  });
  const typename V::Reg total = V::set1(row.sum);
#pragma GCC unroll 8
  for (int g = 0; g < G; ++g) V::store(out + g * V::kWidth, V::div(acc[g], total));
}

/// One channel, for widths that are no multiple of the vector's.
template <class V>
void weighted_values_one(const AttentionArgs& a, const WeightedSum& row, int64_t offset,
                         float* out) {
  float acc = 0.0f;
  const int64_t stride = a.v_stride;
  const float* p = row.p;
  for_each_run(a, row.range, [&](int64_t block, int64_t slot, int64_t run) {
    const float* v = a.v[block] + slot * stride + offset;
    for (int64_t i = 0; i < run; ++i) acc = std::fma(*p++, v[i * stride], acc);
  });
  *out = acc / row.sum;
}

template <class V>
void attention_row(const AttentionArgs& a, int64_t r, int64_t h) {
  const int64_t kv_head = h / (a.heads / a.kv_heads);
  const VisibleRange range = a.visible[r];
  row_scores<V>(a, range, a.q + (r * a.heads + h) * a.head_dim, kv_head, a.scratch);
  const WeightedSum row{range, a.scratch, softmax<V>(a, h, a.scratch, range.count - range.first)};
  float* out = a.out + (r * a.heads + h) * a.v_dim;
  const int64_t base = kv_head * a.v_dim;
  int64_t c = 0;
  for (; c + 8 * V::kWidth <= a.v_dim; c += 8 * V::kWidth)
    weighted_values<V, 8>(a, row, base + c, out + c);
  for (; c + 4 * V::kWidth <= a.v_dim; c += 4 * V::kWidth)
    weighted_values<V, 4>(a, row, base + c, out + c);
  for (; c + V::kWidth <= a.v_dim; c += V::kWidth) weighted_values<V, 1>(a, row, base + c, out + c);
  for (; c < a.v_dim; ++c) weighted_values_one<V>(a, row, base + c, out + c);
}

}  // namespace chimera::kernels_impl
