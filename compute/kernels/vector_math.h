// e^x and groups of floats over the vector type V of impl.h. Private to this folder.
//
// Thread safety: pure functions.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

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

}  // namespace chimera::kernels_impl
