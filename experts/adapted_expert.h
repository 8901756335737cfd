// An expert with what adapters change of it, for one call: the rows of all sequences that chose the
// expert go through its weights together, and each adapter adds to its own rows.
//
// Four stages: inputs brought down to the ranks of gate and up; the activations; these brought down
// to the ranks of down; the outputs.
//
// Thread safety: an AdaptedExpert is made for one call by its owner; its stages are run by several
// threads. ExpertChange is immutable.
#pragma once

#include <cstdint>
#include <span>

#include "compute/low_rank.h"
#include "experts/executor.h"
#include "experts/feed_forward.h"

namespace chimera {

/// What an adapter changes of one expert; any of them may be empty.
struct ExpertChange {
  LowRank gate, up, down;  // [width, hidden] twice, [hidden, width]

  bool empty() const { return gate.empty() && up.empty() && down.empty(); }
  uint64_t bytes() const { return gate.bytes() + up.bytes() + down.bytes(); }
};

class AdaptedExpert final : public StagedExpert {
 public:
  /// Changes as ExpertCall's; they and `expert` outlive the call.
  AdaptedExpert(const FeedForwardExpert& expert, std::span<const RowChange> changes)
      : expert_(&expert), changes_(changes) {}

  int stages() const override { return 4; }
  Stage stage(int index, int64_t rows) const override;
  int64_t scratch_floats(int64_t rows) const override;
  void run_stage(int index, const Kernels& kernels, const float* x, int64_t rows, float* scratch,
                 float* y, int64_t begin, int64_t end) const override;
  uint64_t resident_bytes() const override { return 0; }

 private:
  /// Of all changes, rows times what `rank` gives.
  template <class Rank>
  Stage reduction(int64_t inputs, Rank rank) const;

  const FeedForwardExpert* expert_;
  std::span<const RowChange> changes_;
};

}  // namespace chimera
