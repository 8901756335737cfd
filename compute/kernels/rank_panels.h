// The second product of a low-rank change, y += low * B^T, over panels of B.
//
// In a decode step every adapter has a row or two, so B is read once and little is computed with
// it: how it lies in memory decides. Panels of kRankPanel outputs hold for every rank what these
// outputs take of it, so that whoever computes some of the outputs reads memory in one piece,
// however many ranks there are.
//
//   F32 or BF16, [panels][rank][min(kRankPanel, outputs - first output of the panel)]
//
// An element of y has one fixed order of operations, whatever the instruction set, the rows and the
// range: one fused multiply-add per rank in ascending order, beginning at y.
//
// Thread safety: pure functions; callers give disjoint outputs.
#pragma once

#include <cstdint>

#include "compute/kernels/kernels.h"

namespace chimera {

inline constexpr int64_t kRankPanel = 16;
// Rows that a low-rank product of fewer rows costs as much as: it waits for the weights.
inline constexpr int64_t kRankLeastRows = 4;

/// y[r, n] += sum over k of low[r, k] * B[n, k], for rows r in [0, rows) and n in [n0, n1). `b`:
/// panels, its rows the ranks and its cols the outputs; low [rows, ranks], y with row stride ldy.
/// n0 is a multiple of kRankPanel, and so is n1 unless it is all outputs.
using ExpandRanks = void (*)(const float* low, int64_t rows, const Matrix& b, int64_t n0,
                             int64_t n1, float* y, int64_t ldy);
ExpandRanks expand_ranks(Isa isa);

/// Puts B into panels at `out`, as many elements. Element [n, k] of B, output n and rank k, is at
/// b[n * output_step + k * rank_step]; T is float or the bits of a BF16 or F16.
template <class T>
void to_rank_panels(const T* b, int64_t output_step, int64_t rank_step, int64_t outputs,
                    int64_t ranks, T* out) {
  for (int64_t first = 0; first < outputs; first += kRankPanel) {
    const int64_t last = first + kRankPanel < outputs ? first + kRankPanel : outputs;
    for (int64_t k = 0; k < ranks; ++k) {
      for (int64_t n = first; n < last; ++n) *out++ = b[n * output_step + k * rank_step];
    }
  }
}

// One per instruction set.
extern const ExpandRanks kScalarExpandRanks;
extern const ExpandRanks kAvx2ExpandRanks;
extern const ExpandRanks kAvx512ExpandRanks;

}  // namespace chimera
