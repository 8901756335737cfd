// Scheduler: which tokens run in the next step, and where their keys and values go.
//
// Every decoding sequence runs one token per step, and with speculation guesses of those that may
// follow it. Sequences with a longer run of uncomputed tokens
// (prompts, restarts) share what StepPace allows beside them (chunked prefill, arXiv 2308.16369):
// three quarters go to the shortest rest, so that a short prompt need not wait for long ones, and a
// quarter to the one that came first, so that none waits for ever.
//
// A sequence takes blocks as it grows. When there are none, the sequence admitted last gives up its
// own for the older one (paused): its keys and values are computed again, to the same bits, once
// all that it and those beside it can ever need is there. The oldest can always grow, because the
// cache holds one full context at least; so everybody comes to an end.
//
// Thread safety: engine thread only.
#pragma once

#include <algorithm>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "backbone/backbone.h"
#include "daemon/engine/scheduling/step_pace.h"
#include "daemon/engine/sequence/sequence.h"

namespace chimera {

/// One step: a forward pass for each backbone that its sequences are on. The lists run in parallel.
struct Batch {
  std::vector<BatchSegment> segments;
  std::vector<RoutedSegment> routed;
  std::vector<Sequence*> owners;
  /// 0, or which guess of Sequence::draft a segment runs, counted from 1. They stand behind that of
  /// their sequence's last token, each a segment of its own.
  std::vector<size_t> guesses;

  void clear();
  /// Rows of logits that segment `i` leaves behind.
  int64_t logit_rows(size_t i) const;
  /// The same of hidden states.
  size_t state_rows(size_t i) const;
  /// Puts those on the same backbone next to one another, and of these those with the same
  /// adapters.
  void group();
  /// The segment after those that follow `first` on its backbone: what goes through a pass
  /// together.
  size_t end_of_pass(size_t first) const;
};

class Scheduler {
 public:
  using Live = std::span<const std::unique_ptr<Sequence>>;

  /// `lone_chunk`: `prefill_chunk` of a prompt that is alone; less than that: that.
  Scheduler(KvCache* cache, StepPace pace, int64_t prefill_chunk, bool prefix_cache,
            bool ngram_speculation = false, int64_t lone_chunk = 0)
      : cache_(cache),
        pace_(pace),
        prefill_chunk_(prefill_chunk),
        lone_chunk_(std::max(prefill_chunk, lone_chunk)),
        prefix_cache_(prefix_cache),
        ngram_speculation_(ngram_speculation) {}

  /// Whether a prompt of `tokens` can start beside `live`: its blocks and those that the prompts
  /// there still lack are to be had, and nobody is paused for want of some.
  bool fits(int64_t tokens, Live live) const;
  /// Gives a sequence (with a view, without KV) the blocks of a known prefix. Never the whole of
  /// its tokens: the last one must run to give logits. What reads starts empty, because
  /// it needs something of every position.
  void place(Sequence& sequence);
  /// Fills `batch` from the live sequences, in order, none of which has ended.
  void build(Live live, Batch& batch);
  /// What build() filled took `ms`.
  void record(double ms);
  /// After a good pass: makes the blocks that became full findable for others.
  void publish_blocks(Sequence& sequence);

  /// Sequences paused since the last call.
  uint64_t take_paused() { return std::exchange(paused_, 0); }
  /// Tokens of prompts that were found in the index after their sequences were placed, likewise.
  uint64_t take_found() { return std::exchange(found_, 0); }

 private:
  /// Tokens of one sequence in the next step.
  struct Run {
    Sequence* sequence = nullptr;
    int64_t tokens = 0;
  };
  /// Blocks that a run lacks.
  int64_t blocks_of(const Run& run) const;
  void resume(Live live);
  /// Sets tokens of the runs of prompts.
  void share_out(std::vector<Run>& runs) const;
  /// Makes room for `positions` of live[i], at the cost of those after it. False when it must wait.
  bool grow(Live live, size_t i, int64_t positions);
  void pause(Sequence& sequence);
  void add_to(Batch& batch, const Run& run) const;
  /// Guesses of a sequence that decodes.
  void plan_draft(Sequence& sequence) const;
  /// Adds them behind their sequence, which is the last of the batch, unless others need the
  /// blocks.
  void add_draft(Batch& batch, Sequence& sequence) const;
  int64_t blocks_for(int64_t positions) const;
  /// Blocks that `sequence` lacks for `positions`.
  int64_t lacking(const Sequence& sequence, int64_t positions) const;
  int64_t adopt_prefix(Sequence& sequence);
  /// The blocks of a prompt that others have computed since it was placed.
  void catch_up(Sequence& sequence);
  /// Whether the block without a key that comes next is one that the index can hold.
  bool can_share_next(const Sequence& sequence) const;
  /// Whether nothing of it is computed yet.
  bool is_at_block(const Sequence& sequence) const;
  std::string next_key(const Sequence& sequence) const;

  KvCache* cache_;
  StepPace pace_;
  int64_t prefill_chunk_;
  int64_t lone_chunk_;
  bool prefix_cache_;
  bool ngram_speculation_;
  uint64_t paused_ = 0, found_ = 0;
  int64_t to_come_ = 0;  // blocks, of the runs that build() has yet to add
  // Of the batch that build() filled.
  double units_ = 0.0;
  bool has_prompts_ = false;
  std::vector<Run> runs_;
};

}  // namespace chimera
