// How linear() is cut into shares, for who runs something beside it. Private to this folder.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <span>

#include "compute/linear.h"

namespace chimera {

struct LinearShares {
  int64_t outputs = 0;  // of all ops
  int64_t grain = 0;    // outputs of one share
  int64_t work = 0;     // multiply-adds of all ops
};
LinearShares shares_of(int64_t rows, std::span<const LinearOp> ops, int threads);
/// Outputs [begin, end) of the concatenation of all ops.
void run_outputs(const Kernels& kernels, int64_t rows, std::span<const LinearOp> ops, int64_t begin,
                 int64_t end);

// A hand-over costs about a microsecond when the workers are awake; 64 Ki multiply-adds take
// 1-3 us on one core, so smaller products are cheaper to run in place.
inline constexpr int64_t kInlineWork = 64 * 1024;

}  // namespace chimera
