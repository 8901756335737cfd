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
// (from how many rows on widening a tile of two-byte weights once beats widening it for every
// register tile).
//
// Thread safety: pure functions.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "compute/kernels/attention_block.h"
#include "compute/kernels/kernels.h"
#include "compute/kernels/matmul.h"
#include "compute/kernels/packed.h"
#include "compute/kernels/vector_math.h"

namespace chimera::kernels_impl {

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

/// A product with weights of any format; P multiplies packed ones (packed.h).
template <class V, class P>
void matmul(const float* x, int64_t m, int64_t ldx, const Matrix& w, int64_t n0, int64_t n1,
            float* y, int64_t ldy) {
  switch (w.format) {
    case WeightFormat::kF32:
      return matmul_of<V, float>(x, m, ldx, w, n0, n1, y, ldy);
    case WeightFormat::kBF16:
      return matmul_of<V, uint16_t>(x, m, ldx, w, n0, n1, y, ldy);
    case WeightFormat::kF16:
      return matmul_of<V, Half>(x, m, ldx, w, n0, n1, y, ldy);
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
