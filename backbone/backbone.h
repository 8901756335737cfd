// The resident backbone: embedding, attention, norms and head, and the forward pass through them.
//
// The routed part of every block is not the backbone's: it calls a FeedForward, which the router
// implements over the current routing table. So one forward pass serves sequences that are on
// different tables, and the backbone knows nothing of modules. Layers without a router, and shared
// experts, are the backbone's own.
//
// Thread safety: a Backbone is immutable; `forward` is const and needs a Workspace of the caller's
// own, one per thread that runs passes.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backbone/backbone_weights.h"
#include "backbone/checkpoint.h"
#include "backbone/float_buffer.h"
#include "backbone/kernels.h"
#include "backbone/kv_cache.h"
#include "backbone/linear.h"
#include "backbone/model_config.h"
#include "backbone/rope.h"
#include "backbone/status.h"
#include "backbone/thread_pool.h"

namespace chimera {

/// A run of consecutive positions of one sequence inside a batch.
struct BatchSegment {
  std::span<const int32_t> tokens;  // ids, each < vocab_size
  int64_t position = 0;             // of tokens[0]
  KvSequence* kv = nullptr;         // holds positions [0, position); room for the rest
  enum class Logits : uint8_t { kNone, kLast, kAll } logits = Logits::kLast;
};

/// Computes y = FFN(x) of one layer with a router (ModelConfig::moe_layers), without its shared
/// expert, for all rows of a batch. Rows are the segments' tokens in order. `x`, `y`: [rows,
/// hidden], distinct.
class FeedForward {
 public:
  virtual ~FeedForward() = default;
  virtual Status forward(int64_t layer, const float* x, int64_t rows, float* y) = 0;
};

/// Scratch memory of forward passes; grows to the largest batch seen.
class Workspace {
 public:
  FloatBuffer x, normed, q, k, v, attn, ffn, scores, logits;
  FloatBuffer q_low, q_latent, attn_latent;     // latent attention
  FloatBuffer ffn_gate, ffn_up, shared, share;  // dense and shared feed-forwards
  FloatBuffer rope;                             // [rows, rope_dim]: cosines, then sines
  std::vector<LinearOp> head_ops;               // latent attention: one product per head
  std::vector<const float*> block_ptrs;  // of one layer: each segment's keys, then its values
  std::vector<int64_t> row_segment, row_position, first_block;
};

class Backbone {
 public:
  /// Reads config and backbone tensors (not the routed experts) of an opened checkpoint.
  static Result<std::shared_ptr<const Backbone>> load(const Checkpoint& checkpoint, Precision p);

  const ModelConfig& config() const { return config_; }
  Precision precision() const { return precision_; }
  /// Bytes held for weights.
  uint64_t resident_bytes() const;

  /// One pass over `segments`. Logits of the requested rows are left in ws.logits, [n, vocab], in
  /// row order. Token ids and positions are checked (invalid_argument); on error the caches hold
  /// unspecified values at the new positions and nothing else changed.
  Status forward(std::span<BatchSegment> segments, FeedForward& ffn, const Kernels& kernels,
                 ThreadPool& pool, Workspace& ws) const;

 private:
  ModelConfig config_;
  Precision precision_ = Precision::kBF16;
  Matrix embed_;  // [vocab, hidden]
  Matrix head_;   // [vocab, hidden]
  std::vector<float> final_norm_;
  Rope rope_;
  std::vector<LayerWeights> layers_;
};

/// "sha256:…" of the backbone: name, dtype, shape and bytes of every tensor of the checkpoint in
/// name order, gates as they are stored there, without the feed-forward weights of routed experts.
/// So adding, removing or changing experts keeps it as long as the gate matrices stay, and a
/// directory that `module split` wrote, with the gate rows of the base experts alone, has a
/// fingerprint of its own: the one that the modules cut from it name, so that they are never put
/// on another backbone. Sharding and the order of tensors do not matter.
///
/// Cached in `cache_dir` (made when missing; empty: no cache) under device, inode, size,
/// modification and change time of every file. The cache is best effort and trusts whoever may
/// write to that directory.
Result<std::string> backbone_fingerprint(const Checkpoint& checkpoint,
                                         const std::string& cache_dir);

}  // namespace chimera
