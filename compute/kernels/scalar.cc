// The scalar reference: one float per "vector", fused multiply-add from the C library.
#include <bit>

#include "compute/kernels/impl.h"
#include "compute/kernels/packed_scalar.h"
#include "compute/kernels/rank_panels_impl.h"

namespace chimera {
namespace {

struct Scalar {
  using Reg = float;
  static constexpr int kWidth = 1;
  static constexpr int kRows = 1;
  static constexpr int kCols = 1;
  static constexpr int kGemvCols = 1;
  static constexpr int kWidenFromRows = 8;

  static Reg zero() { return 0.0f; }
  static Reg set1(float v) { return v; }
  static Reg load(const float* p) { return *p; }
  static void store(float* p, Reg r) { *p = r; }
  static float widen(uint16_t v) { return bf16_to_f32(v); }
  static Reg load_bf16(const uint16_t* p) { return widen(*p); }
  static Reg load_f16(const Half* p) { return f16_to_f32(p->bits); }
  static void keep_in_register(Reg&) {}
  static Reg fma(Reg a, Reg b, Reg c) { return std::fma(a, b, c); }
  static Reg add(Reg a, Reg b) { return a + b; }
  static Reg sub(Reg a, Reg b) { return a - b; }
  static Reg mul(Reg a, Reg b) { return a * b; }
  static Reg div(Reg a, Reg b) { return a / b; }
  static Reg max(Reg a, Reg b) { return a > b ? a : b; }
  static Reg select_greater(Reg a, Reg b, Reg yes, Reg no) { return a > b ? yes : no; }
  static Reg select_nan(Reg a, Reg yes, Reg no) { return std::isnan(a) ? yes : no; }
  /// p * 2^n, n in the low bits of t; exact while the result is normal.
  static Reg scale_by_pow2(Reg p, Reg t) {
    return std::bit_cast<float>(std::bit_cast<uint32_t>(p) + (std::bit_cast<uint32_t>(t) << 23));
  }
  static float fold(const Reg (&a)[16]) {
    float s[8];
    for (int i = 0; i < 8; ++i) s[i] = a[i] + a[i + 8];
    for (int i = 0; i < 4; ++i) s[i] = s[i] + s[i + 4];
    for (int i = 0; i < 2; ++i) s[i] = s[i] + s[i + 2];
    return s[0] + s[1];
  }
};

}  // namespace

const Kernels kScalarKernels =
    kernels_impl::make_kernels<Scalar, kernels_impl::PackedScalar>(Isa::kScalar, "scalar");
const ExpandRanks kScalarExpandRanks = kernels_impl::expand_ranks_in<Scalar>;

}  // namespace chimera
