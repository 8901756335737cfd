#include "experts/cpu_executor.h"

#include <vector>

#include "experts/adapted_expert.h"
#include "experts/staged.h"

namespace chimera {
namespace {

// Experts run together while their scratch memory stays within a cache (4 MiB). With more rows than
// that each has work enough for all threads, and their scratch memory would add up for nothing.
constexpr int64_t kTogetherFloats = 1 << 20;

class CpuExecutor final : public ExpertExecutor {
 public:
  ExecutorPlace place() const override { return ExecutorPlace::kPool; }

  void run(std::span<ExpertCall> calls, ExpertContext& pass) override {
    // Kept between calls: nothing allocates once they have grown.
    thread_local std::vector<AdaptedExpert> adapted;
    thread_local std::vector<StagedCall> together;
    adapted.clear();
    adapted.reserve(calls.size());  // they are pointed to
    together.clear();
    int64_t floats = 0;
    for (ExpertCall& call : calls) {
      if (call.done) continue;
      const auto* expert = static_cast<const StagedExpert*>(call.expert);
      if (!call.changes.empty() && expert->feed_forward() != nullptr)
        expert = &adapted.emplace_back(*expert->feed_forward(), call.changes);
      const int64_t need = expert->scratch_floats(call.rows);
      if (!together.empty() && floats + need > kTogetherFloats) {
        run_staged(together, pass);
        together.clear();
        floats = 0;
      }
      floats += need;
      together.push_back({expert, call.x, call.rows, call.y});
      call.end({});
    }
    if (!together.empty()) run_staged(together, pass);
  }
};

}  // namespace

ExpertExecutor& cpu_executor() {
  static CpuExecutor executor;  // has no state
  return executor;
}

}  // namespace chimera
