#include "compute/adapted_linear.h"

#include <algorithm>

#include "compute/linear_shares.h"
#include "compute/low_rank_shares.h"

namespace chimera {

void adapted_linear(const Kernels& kernels, ThreadPool& pool, int64_t rows,
                    std::span<const LinearOp> products, std::span<LowRankOp> changes,
                    FloatBuffer& scratch) {
  if (changes.empty()) return linear(kernels, pool, rows, products);
  place(changes, scratch);
  const LinearShares whole = shares_of(rows, products, pool.threads());
  const LowRankWork low = work_of(changes);
  if (whole.work + low.down < kInlineWork) {
    run_outputs(kernels, rows, products, 0, whole.outputs);
    reduce(kernels, changes, 0, low.ranks);
  } else {
    const int64_t grain = rank_grain(low, pool.threads());
    const int64_t reductions = (low.ranks + grain - 1) / grain;
    const int64_t shares = (whole.outputs + whole.grain - 1) / whole.grain;
    // Reductions first: the small shares at the end even out what threads have left to do.
    const auto run = [&](int64_t share) {
      if (share < reductions) {
        const int64_t begin = share * grain;
        return reduce(kernels, changes, begin, std::min(begin + grain, low.ranks));
      }
      const int64_t begin = (share - reductions) * whole.grain;
      run_outputs(kernels, rows, products, begin, std::min(begin + whole.grain, whole.outputs));
    };
    pool.parallel_for(reductions + shares, 1, [&](int64_t begin, int64_t end) {
      for (int64_t share = begin; share < end; ++share) run(share);
    });
  }
  expand_all(kernels, pool, changes, low);
}

}  // namespace chimera
