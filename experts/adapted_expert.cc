#include "experts/adapted_expert.h"

#include <algorithm>
#include <vector>

#include "compute/kernels/rank_panels.h"

namespace chimera {
namespace {

/// The changes of one stage as the loops of low_rank.h take them; kept between calls, so that
/// nothing allocates once it has grown.
std::vector<LowRankOp>& cleared_ops() {
  thread_local std::vector<LowRankOp> ops;
  ops.clear();
  return ops;
}

/// Floats between what it has been brought down to and the same of the next change: the ranks of
/// gate, up and down.
int64_t low_floats(const RowChange& part) {
  const ExpertChange& c = *part.change;
  return part.rows * (c.gate.rank() + c.up.rank() + c.down.rank());
}

}  // namespace

template <class Rank>
StagedExpert::Stage AdaptedExpert::reduction(int64_t inputs, Rank rank) const {
  int64_t ranks = 0;
  int64_t work = 0;
  for (const RowChange& part : changes_) {
    ranks += rank(*part.change);
    work += rank(*part.change) * std::max(part.rows, kRankLeastRows) * inputs;
  }
  return {ranks, ranks == 0 ? 0 : work / ranks};
}

StagedExpert::Stage AdaptedExpert::stage(int index, int64_t rows) const {
  const auto in = [](const ExpertChange& c) { return c.gate.rank() + c.up.rank(); };
  const auto out = [](const ExpertChange& c) { return c.down.rank(); };
  if (index == 0) return reduction(expert_->hidden(), in);
  if (index == 2) return reduction(expert_->width(), out);
  Stage stage = expert_->stage(index / 2, rows);
  for (const RowChange& part : changes_)
    stage.work +=
        std::max(part.rows, kRankLeastRows) * (index == 1 ? in(*part.change) : out(*part.change));
  return stage;
}

int64_t AdaptedExpert::scratch_floats(int64_t rows) const {
  int64_t floats = expert_->scratch_floats(rows);
  for (const RowChange& part : changes_) floats += low_floats(part);
  return floats;
}

void AdaptedExpert::run_stage(int index, const Kernels& kernels, const float* x, int64_t rows,
                              float* scratch, float* y, int64_t begin, int64_t end) const {
  const int64_t width = expert_->width();
  float* const g = scratch;
  float* const u = g + rows * width;
  float* low = u + rows * width;
  std::vector<LowRankOp>& ops = cleared_ops();
  const auto add = [&](const LowRank& change, const RowChange& part, const float* from, float* to,
                       float* lows) {
    if (!change.empty())
      ops.push_back({&change, from + part.first * change.inputs(),
                     to + part.first * change.outputs(), part.rows, 0, 0, lows});
  };
  for (const RowChange& part : changes_) {
    const ExpertChange& c = *part.change;
    float* const low_up = low + part.rows * c.gate.rank();
    if (index < 2) {
      add(c.gate, part, x, g, low);
      add(c.up, part, x, u, low_up);
    } else {
      add(c.down, part, g, y, low_up + part.rows * c.up.rank());
    }
    low += low_floats(part);
  }
  switch (index) {
    case 1:
      expert_->project(kernels, x, rows, g, u, begin, end);
      expand(kernels, ops, begin, end);
      return expert_->activate(kernels, rows, g, u, begin, end);
    case 3:
      expert_->project_down(kernels, g, rows, y, begin, end);
      return expand(kernels, ops, begin, end);
    default:
      return reduce(kernels, ops, begin, end);
  }
}

}  // namespace chimera
