// The router of the engine, and between it and the backbone somebody who keeps samples of what its
// gates see.
//
// Sampled are rows of sequences that leave the choice to the gates: those that leave out a module,
// by request or for want of rights, or have biases of their own, say nothing of what one would get.
// Nor are rows that may turn out not to count.
//
// Thread safety: one per thread that runs passes.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "router/moe.h"
#include "router/shadow/gate_samples.h"

namespace chimera {

class GateSampler final : public FeedForward {
 public:
  GateSampler(const ModelConfig& config, MoeRouter* router, GateSamples* samples);

  /// As MoeRouter's, to which all of this is handed on.
  void begin_pass(std::span<RoutedSegment> segments, RouterStats* stats);
  Status forward(int64_t layer, const float* x, int64_t rows, float* y) override;
  /// Keeps what was sampled of a pass that went well, but for segments that are poisoned.
  void end_pass();

 private:
  /// Of one pass at most: a chunk of a prompt and many sequences; the staging memory of 512 rows of
  /// 4,096 is 4 MiB.
  static constexpr size_t kMostOfPass = 512;

  struct Pick {
    int32_t layer = 0;
    int64_t row = 0;
    size_t segment = 0;
  };
  void pick(std::span<const RoutedSegment> segments);

  MoeRouter* const router_;
  GateSamples* const samples_;
  std::vector<int32_t> moe_layers_;
  Draw draw_;
  std::span<const RoutedSegment> segments_;
  std::vector<Pick> picks_;
  std::vector<uint16_t> staged_;  // [picks, hidden]
  std::vector<int32_t> layers_;   // scratch of end_pass
};

}  // namespace chimera
