// Experts whose forward is a few loops over independent ranges, run together.
//
// In a decode step of a Mixture-of-Experts model every expert gets a few rows: a loop of its own
// for each would hand over to the compute pool, and wait for its slowest thread, many times per
// layer. run_staged does it once per stage for all of them, and the executor of such experts
// (cpu_executor.h) hands it those of a layer.
//
// Thread safety: an expert is immutable and run by several threads; run_staged by the pool's owner.
#pragma once

#include <cstdint>
#include <span>

#include "experts/expert.h"

namespace chimera {

class StagedExpert : public Expert {
 public:
  /// A loop over [0, outputs); `work` is that of one output, in multiply-adds.
  struct Stage {
    int64_t outputs = 0;
    int64_t work = 0;
  };

  /// Stages run one after the other, each begins when the one before it is done.
  virtual int stages() const = 0;
  virtual Stage stage(int index, int64_t rows) const = 0;
  /// Floats of scratch memory that a call of `rows` rows needs from its first stage to its last.
  virtual int64_t scratch_floats(int64_t rows) const = 0;
  /// Outputs [begin, end) of a stage; x and y as for forward. Concurrent calls have disjoint
  /// ranges.
  virtual void run_stage(int index, const Kernels& kernels, const float* x, int64_t rows,
                         float* scratch, float* y, int64_t begin, int64_t end) const = 0;

  /// cpu_executor().
  ExpertExecutor& executor() const final;
  Status forward(const float* x, int64_t rows, float* y, ExpertContext& ctx) const final;
};

/// forward(x, rows, y) of one expert.
struct StagedCall {
  const StagedExpert* expert = nullptr;
  const float* x = nullptr;
  int64_t rows = 0;
  float* y = nullptr;
};

/// Runs the calls, which must not overlap in y, each with the same bits as its forward.
void run_staged(std::span<const StagedCall> calls, ExpertContext& ctx);

}  // namespace chimera
