#include "compute/linear.h"

#include <algorithm>

#include "compute/linear_shares.h"

namespace chimera {
namespace {

// Smallest share of one thread, and shares per thread for balance (heavier than that helps only
// when threads are uneven).
constexpr int64_t kLeastShare = 16 * 1024;
constexpr int64_t kSharesPerThread = 4;
// Largest share, a quarter of a millisecond to half of one: threads that lost their CPU for a while
// are waited for no longer than that, and a probe in the background gives way as often.
constexpr int64_t kMostShare = 8 * 1024 * 1024;
// Outputs per share are a multiple of the panels of packed weights and, for many rows, of the
// kernels' register tiles (3 and 4 wide). Few rows cut finer, by two panels that they read at once:
// powers of two then fall into shares of one size, of which every thread gets as many (2,048
// outputs in 7 shares of 288 and one of 32 kept one of two threads an eighth longer than the
// other).
constexpr int64_t kOutputTile = 3 * kPanelOutputs;
constexpr int64_t kFewRowsTile = 2 * kPanelOutputs;
constexpr int64_t kFewRows = 32;

}  // namespace

void run_outputs(const Kernels& kernels, int64_t rows, std::span<const LinearOp> ops, int64_t begin,
                 int64_t end) {
  for (const LinearOp& op : ops) {
    const Matrix& w = *op.weight;
    const int64_t n0 = std::max<int64_t>(begin, 0);
    const int64_t n1 = std::min(end, w.rows);
    if (n0 < n1)
      kernels.matmul(op.x, rows, op.ldx > 0 ? op.ldx : w.cols, w, n0, n1, op.y,
                     op.ldy > 0 ? op.ldy : w.rows);
    begin -= w.rows;
    end -= w.rows;
  }
}

LinearShares shares_of(int64_t rows, std::span<const LinearOp> ops, int threads) {
  LinearShares out;
  for (const LinearOp& op : ops) {
    out.outputs += op.weight->rows;
    out.work += op.weight->rows * op.weight->cols * rows;
  }
  const int64_t most = threads == 1 ? 1 : threads * kSharesPerThread;
  const int64_t shares =
      std::clamp<int64_t>(out.work / kLeastShare, 1, std::max(most, out.work / kMostShare));
  const int64_t tile = rows < kFewRows ? kFewRowsTile : kOutputTile;
  out.grain = std::max<int64_t>(1, (out.outputs / shares + tile - 1) / tile) * tile;
  return out;
}

void linear(const Kernels& kernels, ThreadPool& pool, int64_t rows, std::span<const LinearOp> ops) {
  const LinearShares all = shares_of(rows, ops, pool.threads());
  if (all.outputs == 0 || rows == 0) return;
  const uint64_t loop = SharedInputs::next_loop();
  if (all.work < kInlineWork) {
    const SharedInputs inputs(loop);
    return run_outputs(kernels, rows, ops, 0, all.outputs);
  }
  pool.parallel_for(all.outputs, all.grain, [&](int64_t begin, int64_t end) {
    const SharedInputs inputs(loop);
    run_outputs(kernels, rows, ops, begin, end);
  });
}

}  // namespace chimera
