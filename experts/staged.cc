#include "experts/staged.h"

#include <algorithm>
#include <vector>

#include "experts/cpu_executor.h"

namespace chimera {
namespace {

// Work per hand-over to the pool, in multiply-adds: about 3 us on one core, several times what
// waking a spinning worker costs.
constexpr int64_t kLeastWork = 1 << 16;
// Largest share, about half a millisecond: threads that lost their CPU for a while are waited for
// no longer than that, and a probe in the background gives way as often.
constexpr int64_t kMostWork = 16 << 20;
// For balance; more shares than that begin with cold weights too often.
constexpr int64_t kSharesPerThread = 8;
// Ranges of outputs are whole multiples of this: one cache line of floats, so that two threads
// never write to the same line.
constexpr int64_t kOutputStep = 16;

struct Share {
  size_t call;
  int64_t begin, end;
};

/// The shares of one stage of all calls, each about as much work as the others.
void share_out(std::span<const StagedCall> calls, int stage, int threads,
               std::vector<Share>& shares) {
  const auto stage_of = [&](const StagedCall& call) {
    return stage < call.expert->stages() ? call.expert->stage(stage, call.rows)
                                         : StagedExpert::Stage();
  };
  int64_t work = 0;
  for (const StagedCall& call : calls) {
    const StagedExpert::Stage s = stage_of(call);
    work += s.outputs * s.work;
  }
  const int64_t share = std::clamp(work / (threads * kSharesPerThread), kLeastWork, kMostWork);
  shares.clear();
  for (size_t i = 0; i < calls.size(); ++i) {
    const StagedExpert::Stage s = stage_of(calls[i]);
    const int64_t outputs = share / std::max<int64_t>(1, s.work);
    const int64_t step = std::max<int64_t>(1, outputs / kOutputStep) * kOutputStep;
    for (int64_t begin = 0; begin < s.outputs; begin += step)
      shares.push_back({i, begin, std::min(begin + step, s.outputs)});
  }
}

}  // namespace

ExpertExecutor& StagedExpert::executor() const { return cpu_executor(); }

Status StagedExpert::forward(const float* x, int64_t rows, float* y, ExpertContext& ctx) const {
  const StagedCall call{this, x, rows, y};
  run_staged({&call, 1}, ctx);
  return {};
}

void run_staged(std::span<const StagedCall> calls, ExpertContext& ctx) {
  // Kept between calls: nothing allocates once they have grown.
  thread_local std::vector<Share> shares;
  thread_local std::vector<int64_t> scratch_at;
  scratch_at.clear();
  int64_t floats = 0;
  int stages = 0;
  for (const StagedCall& call : calls) {
    scratch_at.push_back(floats);
    floats += call.expert->scratch_floats(call.rows);
    stages = std::max(stages, call.expert->stages());
  }
  if (ctx.scratch.size() < static_cast<size_t>(floats))
    ctx.scratch.resize(static_cast<size_t>(floats));
  const int64_t* const offsets = scratch_at.data();
  for (int stage = 0; stage < stages; ++stage) {
    share_out(calls, stage, ctx.pool.threads(), shares);
    const Share* const all = shares.data();
    const uint64_t loop = SharedInputs::next_loop();
    const auto run = [&](int64_t first, int64_t last) {
      const SharedInputs inputs(loop);  // the rows of an expert, over its shares
      for (int64_t i = first; i < last; ++i) {
        const Share& share = all[i];
        const StagedCall& call = calls[share.call];
        call.expert->run_stage(stage, ctx.kernels, call.x, call.rows,
                               ctx.scratch.data() + offsets[share.call], call.y, share.begin,
                               share.end);
      }
    };
    ctx.pool.parallel_for(static_cast<int64_t>(shares.size()), 1, run);
  }
}

}  // namespace chimera
