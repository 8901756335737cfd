// Step: one forward pass over a batch of the live sequences, then one sampled token (or scored
// rows) for each. Sequences of different bundles are on different backbones; there is one pass for
// each of these, one after the other.
//
// Thread safety: engine thread only.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "backbone/backbone.h"
#include "daemon/engine/live_sequences.h"
#include "daemon/engine/scheduling/scheduler.h"
#include "daemon/engine/statistics.h"
#include "router/moe.h"
#include "router/shadow/gate_sampler.h"

namespace chimera {

class Step {
 public:
  /// `live`, `statistics` and `samples` outlive this. `threads`: compute pool including the engine
  /// thread. `mask_work`: EngineOptions::mask_work.
  Step(std::shared_ptr<const Backbone> backbone, int threads, uint64_t mask_work,
       LiveSequences* live, Statistics* statistics, GateSamples* samples);

  /// Advances every live sequence that has its turn, and ends those that are complete or failed.
  /// False: it was nobody's turn.
  bool run();
  /// Forgets the views of the last run.
  void let_go();

 private:
  /// A sequence whose logits are there, and what was drawn from them.
  struct Sample {
    Sequence* sequence = nullptr;
    size_t entry = 0;               // of the batch
    std::span<const float> logits;  // [vocab]
    Drawn drawn;
  };

  /// Looks for what constrained sequences may draw next, for so long as a step may wait for it.
  /// Those for which it is not found yet sit this step out.
  void find_masks();
  /// A pass over batch entries [first, first + count), of one backbone, and what comes of it.
  void run_pass(size_t first, size_t count);
  Status forward(size_t first, size_t count);
  /// Advances the sequences of batch entries [first, first + count), whose logits are in the
  /// workspace.
  void take_results(size_t first, size_t count);
  /// False when the entry's sequence failed.
  bool advance(size_t entry);
  void accept(const Sample& sample);
  /// The sample at the guess behind `sample`, when that is the token that was drawn; nothing
  /// (`sequence` null) when it is another, or there is none. Of a pass over entries [first, end).
  Sample next_of_draft(const Sample& sample, size_t first, size_t end);
  /// Takes guesses back that did not run.
  static void forget_draft(Sequence& sequence);
  /// Tells the drafters of these entries how their guesses did, and takes back what those that did
  /// not hold left in the KV cache.
  void settle_drafts(size_t first, size_t end);
  /// `logits`: the rows of the positions that just ran, [rows, vocab].
  void take_scores(Sequence& sequence, std::span<const float> logits);
  /// `states`: likewise, [rows, hidden].
  void take_states(Sequence& sequence, std::span<const float> states);
  void score_rows(const Sequence& sequence, std::span<const float> logits, size_t start);

  const std::shared_ptr<const Backbone> backbone_;
  const uint64_t mask_work_;
  LiveSequences* const live_;
  Statistics* const statistics_;
  const Kernels& kernels_;
  ThreadPool pool_;
  MoeRouter router_;
  GateSampler sampler_;  // in front of it
  Workspace workspace_;
  Batch batch_;
  std::vector<Sequence*> unmasked_;
  std::vector<Sample> samples_;
  std::vector<std::span<const float>> guess_logits_;  // [entries], of guesses
  std::vector<double> row_logprobs_;                  // of the score being taken
};

}  // namespace chimera
