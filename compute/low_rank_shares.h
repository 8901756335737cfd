// How the loops over low-rank changes are cut into shares. Private to this folder.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <span>

#include "compute/low_rank.h"

namespace chimera {

/// In multiply-adds, those of few rows counted as kRankLeastRows.
struct LowRankWork {
  int64_t ranks = 0;    // of all ops
  int64_t outputs = 0;  // of the widest
  int64_t down = 0, up = 0;
};
LowRankWork work_of(std::span<const LowRankOp> ops);
/// Ranks of one share of the first loop, outputs of one of the second.
int64_t rank_grain(const LowRankWork& work, int threads);
int64_t output_grain(const LowRankWork& work, int threads);
/// Gives every op its scratch memory.
void place(std::span<LowRankOp> ops, FloatBuffer& scratch);
/// The second loop, over the pool where that pays.
void expand_all(const Kernels& kernels, ThreadPool& pool, std::span<const LowRankOp> ops,
                const LowRankWork& work);

}  // namespace chimera
