// The engine without a daemon: a checkpoint in memory and passes over batches of sequences, in this
// process. What it does in a second is what a daemon can reach at most.
//
// Errors throw std::runtime_error. Thread safety: by the thread that made it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "backbone/backbone.h"
#include "base/threads/thread_pool.h"
#include "compute/tensor/precision.h"
#include "router/moe.h"

namespace chimera::bench {

class EngineOnly {
 public:
  /// `checkpoint`: a directory or a GGUF file. `threads`: 0 = auto.
  EngineOnly(const std::string& checkpoint, const PrecisionPlan& precision, int threads);

  const ModelConfig& config() const { return backbone_->config(); }
  ThreadPool& pool() { return pool_; }
  /// In which the routed experts lie.
  WeightFormat expert_format() const { return expert_format_; }
  /// What experts are stored as that are widened at every use; "" for those that are not.
  const std::string& widened() const { return widened_; }
  /// Multiply-adds of matrix products for one token, without the head; and of the head.
  double token_products() const { return token_products_; }
  double head_products() const { return head_products_; }

  /// Sequences that run in one batch.
  class Streams {
   public:
    /// With room for `most` positions each.
    Streams(EngineOnly& engine, int count, int64_t most);
    /// Runs `tokens` random tokens of every stream, at most `chunk` rows in a pass. Seconds.
    double prefill(int64_t tokens, int64_t chunk);
    struct Decoded {
      double seconds = 0;  // of all steps
      double bytes = 0;    // of weights that they read: each once per step and matrix
    };
    /// `steps` tokens of every stream, one per step, each with logits.
    Decoded decode(int64_t steps);

   private:
    void pass(const std::vector<int32_t>& tokens, int64_t each, bool logits);

    EngineOnly& engine_;
    std::unique_ptr<KvCache> cache_;
    std::vector<std::unique_ptr<KvSequence>> kvs_;
    int64_t position_ = 0;
    uint64_t random_ = 1;
    RouterStats routed_;
  };

 private:
  void count(const Checkpoint& checkpoint, const Module& base);
  void note_format(const Checkpoint& checkpoint);
  /// Of weights that a pass read in which `routed` counted.
  double bytes_of_pass(const RouterStats& routed) const;

  ThreadPool pool_;
  std::shared_ptr<const Backbone> backbone_;
  std::shared_ptr<const RouteView> view_;
  std::unique_ptr<MoeRouter> router_;
  Workspace workspace_;
  WeightFormat expert_format_ = WeightFormat::kF32;
  std::string widened_;
  double every_pass_bytes_ = 0;       // attention, dense parts, gates, head
  std::vector<double> expert_bytes_;  // [layers] of one routed expert
  double token_products_ = 0, head_products_ = 0;
};

}  // namespace chimera::bench
