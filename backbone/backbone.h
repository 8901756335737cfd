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

#include "backbone/checkpoint/checkpoint.h"
#include "backbone/families/needed_tensors.h"
#include "backbone/forward/batch.h"
#include "backbone/forward/rope.h"
#include "backbone/forward/weights.h"
#include "base/status.h"
#include "base/threads/thread_pool.h"
#include "compute/kernels/kernels.h"

namespace chimera {

class Backbone {
 public:
  /// Reads config and backbone tensors (not the routed experts) of an opened checkpoint.
  static Result<std::shared_ptr<const Backbone>> load(const Checkpoint& checkpoint,
                                                      const PrecisionPlan& precision);

  const ModelConfig& config() const { return config_; }
  const PrecisionPlan& precision() const { return precision_; }
  /// Bytes held for weights.
  uint64_t resident_bytes() const;

  /// The weight of a product of a layer; null where the layer has none, and for kKvB, which is kept
  /// cut up per head.
  const Matrix* weight(int64_t layer, TensorRole role) const;

  /// One pass over `segments`. Logits of the requested rows are left in ws.logits, [n, vocab], in
  /// row order, and the final norm of the rows of segments that want states in ws.states, [n,
  /// hidden], likewise. Token ids and positions are checked (invalid_argument); on error the caches
  /// hold unspecified values at the new positions and nothing else changed.
  Status forward(std::span<BatchSegment> segments, FeedForward& ffn, const Kernels& kernels,
                 ThreadPool& pool, Workspace& ws) const;

 private:
  ModelConfig config_;
  PrecisionPlan precision_;
  Matrix embed_;  // [vocab, hidden]
  Matrix head_;   // [vocab, hidden]
  std::vector<float> final_norm_;
  Rope rope_;
  std::vector<LayerWeights> layers_;
};

}  // namespace chimera
