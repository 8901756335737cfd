// What one forward pass takes: the segments of a batch, the routed feed-forward of its layers, and
// scratch memory.
//
// Thread safety: none; a batch and its workspace belong to the thread that runs the pass.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backbone/forward/adapter.h"
#include "backbone/forward/kv_cache.h"
#include "base/status.h"
#include "compute/linear.h"
#include "compute/tensor/float_buffer.h"

namespace chimera {

/// A run of consecutive positions of one sequence inside a batch.
struct BatchSegment {
  std::span<const int32_t> tokens;  // ids, each < vocab_size
  int64_t position = 0;             // of tokens[0]
  KvSequence* kv = nullptr;         // holds positions [0, position); room for the rest. Those of
                                    // one batch are in caches of one format
  enum class Logits : uint8_t { kNone, kLast, kAll } logits = Logits::kLast;
  /// Added in this order; borrowed for the pass. Segments next to one another with the same ones
  /// are computed together.
  std::span<const BackboneAdapter* const> adapters{};
  bool states = false;  // the final norm of every row is left in Workspace::states
};

/// Computes y = FFN(x) of one layer with a router (ModelConfig::moe_layers), without its shared
/// expert, for all rows of a batch. Rows are the segments' tokens in order. `x`, `y`: [rows,
/// hidden], distinct.
class FeedForward {
 public:
  virtual ~FeedForward() = default;
  virtual Status forward(int64_t layer, const float* x, int64_t rows, float* y) = 0;
};

/// Rows of a batch that one adapter changes.
struct AdaptedRows {
  const BackboneAdapter* adapter = nullptr;
  int64_t first = 0;
  int64_t rows = 0;
};

/// Rows of a batch that one segment has.
struct RowRun {
  int64_t first = 0;
  int64_t rows = 0;
};

/// Shares of a loop over rows for each thread: none waits long for another that lost its CPU.
inline constexpr int64_t kForwardShares = 4;

/// In how many shares, each with scratch memory of its own, the rows of a pass attend: some for
/// each thread, so that none waits long for another; one, where the scores of a long context would
/// otherwise add up.
inline int64_t attention_shares(int64_t threads, int64_t scratch_floats) {
  constexpr int64_t kLongScratch = int64_t{1} << 19;
  return scratch_floats > kLongScratch ? threads : kForwardShares * threads;
}

/// Scratch memory of forward passes; grows to the largest batch seen.
class Workspace {
 public:
  FloatBuffer x, normed, q, k, v, attn, ffn, scores, logits, states;
  FloatBuffer q_low, q_latent, attn_latent;     // latent attention
  FloatBuffer ffn_gate, ffn_up, shared, share;  // dense and shared feed-forwards
  FloatBuffer rope;                             // [rows, rope_dim]: cosines, then sines
  std::vector<LinearOp> head_ops;               // latent attention: one product per head
  std::vector<std::byte*> blocks;        // of one layer: each segment's keys, then its values
  std::vector<const float*> block_ptrs;  // the same as attention reads them
  /// A block that is widened: its keys and its values among `blocks`, how many positions of it,
  /// and where they go in `wide`.
  struct Widening {
    size_t keys, values;
    int64_t tokens, to;
  };
  std::vector<Widening> widenings;
  FloatBuffer wide;                       // what two-byte caches hold, keys and values of a block
  int64_t most_widened = kWidenedFloats;  // at a time; less in tests
  std::vector<int64_t> row_segment, row_position, first_block;
  std::vector<VisibleRange> visible;    // of a layer, by row
  std::vector<RowRun> row_runs;         // likewise: what attends together
  std::vector<AdaptedRows> adapted;     // of a pass
  std::vector<LowRankOp> low_rank_ops;  // of one product
  FloatBuffer low_rank;                 // lent to them
};

}  // namespace chimera
