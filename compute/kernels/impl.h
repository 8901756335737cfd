// The kernels, written once over a small vector type V. Private to the kernels_*.cc files.
//
// Each instruction set supplies a V in its own anonymous namespace, so nothing compiled with
// -mavx512f can be merged by the linker into code that runs on an older machine. Because every
// variant runs these same lines, equal bits follow from two facts alone: V's operations are the
// IEEE ones (fused multiply-add included), and V::fold adds the 16 partial sums in one order:
//
//   s8[i] = a[i] + a[i+8]   s4[i] = s8[i] + s8[i+4]   s2[i] = s4[i] + s4[i+2]   s2[0] + s2[1]
//
// What V provides: Reg (kWidth floats), the operations used below, kRows x kCols (register tile of
// the matrix product), kGemvCols (weight rows in flight for a single input row) and kWidenFromRows
// (from how many rows on widening a BF16 tile once beats widening it for every register tile).
//
// Thread safety: pure functions.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "compute/kernels/kernels.h"
#include "compute/kernels/matmul.h"
#include "compute/kernels/packed.h"

namespace chimera::kernels_impl {

/// e^x to 1 ulp over the normal range; 0 below it, infinity above, NaN for NaN. The polynomial is
/// that of Cephes expf (S. Moshier): x = n ln 2 + r, |r| <= ln 2 / 2, e^x = 2^n p(r).
template <class V>
[[gnu::always_inline]] inline typename V::Reg exp_of(typename V::Reg x) {
  using R = typename V::Reg;
  constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const R t = V::fma(x, V::set1(1.44269504088896341f), V::set1(kMagic));
  const R n = V::sub(t, V::set1(kMagic));
  R r = V::fma(n, V::set1(-0.693359375f), x);
  r = V::fma(n, V::set1(2.12194440e-4f), r);
  R p = V::set1(1.9875691500e-4f);
  p = V::fma(p, r, V::set1(1.3981999507e-3f));
  p = V::fma(p, r, V::set1(8.3334519073e-3f));
  p = V::fma(p, r, V::set1(4.1665795894e-2f));
  p = V::fma(p, r, V::set1(1.6666665459e-1f));
  p = V::fma(p, r, V::set1(5.0000001201e-1f));
  p = V::add(V::fma(p, V::mul(r, r), r), V::set1(1.0f));
  R y = V::scale_by_pow2(p, t);
  y = V::select_greater(x, V::set1(88.7228317f), V::set1(std::numeric_limits<float>::infinity()),
                        y);
  y = V::select_greater(V::set1(-87.3365402f), x, V::zero(), y);
  return V::select_nan(x, x, y);
}

/// Calls op(offset, count) for groups of kWidth floats; the last may be short.
template <class V, class Op>
[[gnu::always_inline]] inline void for_each_group(int64_t n, Op op) {
  for (int64_t i = 0; i < n; i += V::kWidth) op(i, std::min<int64_t>(V::kWidth, n - i));
}

template <class V>
[[gnu::always_inline]] inline typename V::Reg load_some(const float* p, int64_t n, float fill) {
  if (n == V::kWidth) return V::load(p);
  alignas(64) float group[V::kWidth];
  for (int64_t i = 0; i < V::kWidth; ++i) group[i] = i < n ? p[i] : fill;
  return V::load(group);
}
template <class V>
[[gnu::always_inline]] inline void store_some(float* p, int64_t n, typename V::Reg r) {
  if (n == V::kWidth) return V::store(p, r);
  alignas(64) float group[V::kWidth];
  V::store(group, r);
  for (int64_t i = 0; i < n; ++i) p[i] = group[i];
}

template <class V>
void rms_norm(const float* x, const float* w, int64_t n, float eps, float* out) {
  Sums<V, 1, 1> squares;
  squares.clear();
  squares.add(x, n, x, n, n);
  float sum;
  squares.fold(&sum, 1);
  const float scale = 1.0f / std::sqrt(sum / static_cast<float>(n) + eps);
  const typename V::Reg s = V::set1(scale);
  for_each_group<V>(n, [&](int64_t i, int64_t c) {
    typename V::Reg r = V::mul(load_some<V>(x + i, c, 0.0f), s);
    if (w != nullptr) r = V::mul(load_some<V>(w + i, c, 0.0f), r);
    store_some<V>(out + i, c, r);
  });
}

template <class V>
void swiglu(float* gate, const float* up, int64_t n) {
  for_each_group<V>(n, [&](int64_t i, int64_t c) {
    const typename V::Reg g = load_some<V>(gate + i, c, 0.0f);
    const typename V::Reg e = exp_of<V>(V::sub(V::zero(), g));
    const typename V::Reg silu = V::div(g, V::add(V::set1(1.0f), e));
    store_some<V>(gate + i, c, V::mul(silu, load_some<V>(up + i, c, 0.0f)));
  });
}

template <class V>
void axpy(float a, const float* x, float* y, int64_t n) {
  const typename V::Reg av = V::set1(a);
  for_each_group<V>(n, [&](int64_t i, int64_t c) {
    store_some<V>(y + i, c, V::fma(av, load_some<V>(x + i, c, 0.0f), load_some<V>(y + i, c, 0.0f)));
  });
}

/// Calls op(block, slot, run): the visible positions in order, cut at block boundaries.
template <class Op>
[[gnu::always_inline]] inline void for_each_run(const AttentionArgs& a, Op op) {
  for (int64_t pos = a.first; pos < a.count;) {
    const int64_t block = pos / a.block_tokens;
    const int64_t slot = pos % a.block_tokens;
    const int64_t run = std::min(a.block_tokens - slot, a.count - pos);
    op(block, slot, run);
    pos += run;
  }
}

/// scores[i] = (q . k_{first+i}) * scale; returns their maximum.
template <class V>
float attention_scores(const AttentionArgs& a, const float* q, int64_t kv_head, float* scores) {
  constexpr int kKeys = V::kGemvCols;
  const int64_t stride = a.k_stride;
  float* out = scores;
  for_each_run(a, [&](int64_t block, int64_t slot, int64_t run) {
    const float* k = a.k[block] + slot * stride + kv_head * a.head_dim;
    int64_t i = 0;
    for (; i + kKeys <= run; i += kKeys)
      tile<V, 1, kKeys>(q, 0, k + i * stride, stride, a.head_dim, out + i, 0);
    for (; i < run; ++i) tile<V, 1, 1>(q, 0, k + i * stride, stride, a.head_dim, out + i, 0);
    out += run;
  });
  const typename V::Reg scale = V::set1(a.scale);
  constexpr float kLowest = -std::numeric_limits<float>::infinity();
  typename V::Reg top = V::set1(kLowest);
  for_each_group<V>(a.count - a.first, [&](int64_t i, int64_t c) {
    const typename V::Reg s = V::mul(load_some<V>(scores + i, c, kLowest), scale);
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

/// out[0..G*kWidth) = sum_i p[i] * v_i, in position order, over `sum`.
template <class V, int G>
void weighted_values(const AttentionArgs& a, const float* p, int64_t offset, float sum,
                     float* out) {
  typename V::Reg acc[G];
#pragma GCC unroll 8
  for (int g = 0; g < G; ++g) acc[g] = V::zero();
  const int64_t stride = a.v_stride;
  for_each_run(a, [&](int64_t block, int64_t slot, int64_t run) {
    const float* v = a.v[block] + slot * stride + offset;
    for (int64_t i = 0; i < run; ++i, v += stride) {
      const typename V::Reg weight = V::set1(*p++);
#pragma GCC unroll 8
      for (int g = 0; g < G; ++g) acc[g] = V::fma(weight, V::load(v + g * V::kWidth), acc[g]);
    }
  });
  const typename V::Reg total = V::set1(sum);
#pragma GCC unroll 8
  for (int g = 0; g < G; ++g) V::store(out + g * V::kWidth, V::div(acc[g], total));
}

/// One channel, for widths that are no multiple of the vector's.
template <class V>
void weighted_values_one(const AttentionArgs& a, const float* p, int64_t offset, float sum,
                         float* out) {
  float acc = 0.0f;
  const int64_t stride = a.v_stride;
  for_each_run(a, [&](int64_t block, int64_t slot, int64_t run) {
    const float* v = a.v[block] + slot * stride + offset;
    for (int64_t i = 0; i < run; ++i) acc = std::fma(*p++, v[i * stride], acc);
  });
  *out = acc / sum;
}

/// e^x of one number, the same bits as a lane of exp_of.
template <class V>
float exp_one(float x) {
  alignas(64) float lanes[V::kWidth];
  V::store(lanes, exp_of<V>(V::set1(x)));
  return lanes[0];
}

template <class V>
void attention(const AttentionArgs& a, int64_t h0, int64_t h1) {
  const int64_t group = a.heads / a.kv_heads;
  for (int64_t h = h0; h < h1; ++h) {
    const int64_t kv_head = h / group;
    float* out = a.out + h * a.v_dim;
    float top = attention_scores<V>(a, a.q + h * a.head_dim, kv_head, a.scores);
    if (a.sinks != nullptr) top = std::max(top, a.sinks[h]);
    float sum = exponentials<V>(a.scores, a.count - a.first, top);
    if (a.sinks != nullptr) sum += exp_one<V>(a.sinks[h] - top);
    int64_t c = 0;
    const int64_t base = kv_head * a.v_dim;
    for (; c + 8 * V::kWidth <= a.v_dim; c += 8 * V::kWidth)
      weighted_values<V, 8>(a, a.scores, base + c, sum, out + c);
    for (; c + 4 * V::kWidth <= a.v_dim; c += 4 * V::kWidth)
      weighted_values<V, 4>(a, a.scores, base + c, sum, out + c);
    for (; c + V::kWidth <= a.v_dim; c += V::kWidth)
      weighted_values<V, 1>(a, a.scores, base + c, sum, out + c);
    for (; c < a.v_dim; ++c) weighted_values_one<V>(a, a.scores, base + c, sum, out + c);
  }
}

/// A product with weights of any format; P multiplies packed ones (packed.h).
template <class V, class P>
void matmul(const float* x, int64_t m, int64_t ldx, const Matrix& w, int64_t n0, int64_t n1,
            float* y, int64_t ldy) {
  switch (w.format) {
    case WeightFormat::kF32:
      return matmul_of<V, float>(x, m, ldx, w, n0, n1, y, ldy);
    case WeightFormat::kBF16:
      return matmul_of<V, uint16_t>(x, m, ldx, w, n0, n1, y, ldy);
    case WeightFormat::kQ8:
      return packed_matmul<P, WeightFormat::kQ8>(x, m, ldx, w, n0, n1, y, ldy);
    case WeightFormat::kQ4:
      return packed_matmul<P, WeightFormat::kQ4>(x, m, ldx, w, n0, n1, y, ldy);
    case WeightFormat::kIQ4_NL:
      return packed_matmul<P, WeightFormat::kIQ4_NL>(x, m, ldx, w, n0, n1, y, ldy);
    case WeightFormat::kMXFP4:
      return packed_matmul<P, WeightFormat::kMXFP4>(x, m, ldx, w, n0, n1, y, ldy);
    case WeightFormat::kQ2_K:
      return packed_matmul<P, WeightFormat::kQ2_K>(x, m, ldx, w, n0, n1, y, ldy);
    case WeightFormat::kQ3_K:
      return packed_matmul<P, WeightFormat::kQ3_K>(x, m, ldx, w, n0, n1, y, ldy);
    case WeightFormat::kQ4_K:
      return packed_matmul<P, WeightFormat::kQ4_K>(x, m, ldx, w, n0, n1, y, ldy);
    case WeightFormat::kQ5_K:
      return packed_matmul<P, WeightFormat::kQ5_K>(x, m, ldx, w, n0, n1, y, ldy);
    case WeightFormat::kQ6_K:
      return packed_matmul<P, WeightFormat::kQ6_K>(x, m, ldx, w, n0, n1, y, ldy);
  }
}

template <class V, class P>
constexpr Kernels make_kernels(Isa isa, std::string_view name) {
  return Kernels{isa, name, matmul<V, P>, rms_norm<V>, swiglu<V>, axpy<V>, attention<V>};
}

}  // namespace chimera::kernels_impl

namespace chimera {
// One table per kernels_*.cc.
extern const Kernels kScalarKernels;
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
}  // namespace chimera
