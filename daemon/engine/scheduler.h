// Scheduler: which tokens run in the next step, and where their keys and values go.
//
// Every decoding sequence runs one token per step. Sequences with a longer run of uncomputed
// tokens (prompts, restarts) share `prefill_chunk` tokens per step in order of admission, so a long
// prompt delays the streams beside it by one chunk at most (chunked prefill, arXiv 2308.16369).
//
// A sequence reserves the blocks of its whole prompt and answer at admission; once live it cannot
// fail for lack of blocks.
//
// Thread safety: engine thread only.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "backbone/backbone.h"
#include "daemon/engine/sequence/sequence.h"

namespace chimera {

/// One forward pass; the three lists run in parallel.
struct Batch {
  std::vector<BatchSegment> segments;
  std::vector<RoutedSegment> routed;
  std::vector<Sequence*> owners;

  void clear();
  /// Rows of logits that segment `i` leaves behind.
  int64_t logit_rows(size_t i) const;
};

class Scheduler {
 public:
  Scheduler(KvCache* cache, int64_t prefill_chunk, bool prefix_cache)
      : cache_(cache), prefill_chunk_(prefill_chunk), prefix_cache_(prefix_cache) {}

  /// True when the blocks of `positions` positions are there.
  bool fits(int64_t positions) const;
  /// Gives a sequence (with a view, without KV) its blocks: those of a known prefix and new ones
  /// for the rest. Never the whole of its tokens: the last one must run to give logits. Scores
  /// start empty, because they need the logits of every position.
  Status place(Sequence& sequence);
  /// Fills `batch` from the live sequences, in order.
  void build(std::span<const std::unique_ptr<Sequence>> live, Batch& batch) const;
  /// After a good pass: makes the blocks that became full findable for others.
  void publish_blocks(Sequence& sequence);

 private:
  int64_t adopt_prefix(Sequence& sequence);
  std::string next_key(const Sequence& sequence) const;

  KvCache* cache_;
  int64_t prefill_chunk_;
  bool prefix_cache_;
};

}  // namespace chimera
