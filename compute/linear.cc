#include "compute/linear.h"

#include <algorithm>

namespace chimera {
namespace {

// A hand-over costs about a microsecond when the workers are awake; 64 Ki multiply-adds take
// 1-3 us on one core, so smaller products are cheaper to run in place.
constexpr int64_t kInlineWork = 64 * 1024;
// Smallest share of one thread, and shares per thread for balance (heavier than that helps only
// when threads are uneven).
constexpr int64_t kLeastShare = 16 * 1024;
constexpr int64_t kSharesPerThread = 4;
// Largest share, a quarter of a millisecond to half of one: threads that lost their CPU for a while
// are waited for no longer than that, and a probe in the background gives way as often.
constexpr int64_t kMostShare = 8 * 1024 * 1024;
// Outputs per share are a multiple of the kernels' register tiles (3 and 4 wide, 8 for one row) and
// of the panels of packed weights.
constexpr int64_t kOutputTile = 3 * kPanelOutputs;

/// Outputs [begin, end) of the concatenation of all ops.
void run_range(const Kernels& kernels, int64_t rows, std::span<const LinearOp> ops, int64_t begin,
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

}  // namespace

void linear(const Kernels& kernels, ThreadPool& pool, int64_t rows, std::span<const LinearOp> ops) {
  int64_t outputs = 0;
  int64_t work = 0;
  for (const LinearOp& op : ops) {
    outputs += op.weight->rows;
    work += op.weight->rows * op.weight->cols * rows;
  }
  if (outputs == 0 || rows == 0) return;
  if (work < kInlineWork) {
    run_range(kernels, rows, ops, 0, outputs);
    return;
  }
  const int64_t most = pool.threads() == 1 ? 1 : pool.threads() * kSharesPerThread;
  const int64_t shares =
      std::clamp<int64_t>(work / kLeastShare, 1, std::max(most, work / kMostShare));
  const int64_t grain = (outputs / shares + kOutputTile - 1) / kOutputTile * kOutputTile;
  pool.parallel_for(outputs, grain,
                    [&](int64_t begin, int64_t end) { run_range(kernels, rows, ops, begin, end); });
}

}  // namespace chimera
