// The resident backbone: embedding, attention, norms and head, and the forward pass through them.
//
// The routed part of every block is not the backbone's: it calls a FeedForward, which the router
// implements over the current routing table. So one forward pass serves sequences that are on
// different tables, and the backbone knows nothing of modules. Layers without a router, and shared
// experts, are the backbone's own.
//
// A backbone can be made from another one and other tensors in some places; both are whole, and
// what did not change they share. Which of them a sequence runs on is its caller's to say.
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

  /// This backbone with these tensors in place of its own: dense, F32, F16 or BF16, each once, by
  /// the names and with the shapes of needed_tensors.h, kept in the formats that load() would give
  /// them. Every other tensor is shared with this one. not_found: a name that is none of them;
  /// data_corrupt: another shape; unimplemented: another dtype; resource_exhausted: no memory.
  Result<std::shared_ptr<const Backbone>> with(std::span<const TensorView> tensors) const;
  /// Bytes held for weights that `other`, of the same checkpoint, does not hold as well.
  uint64_t bytes_beside(const Backbone& other) const;

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
  /// Puts `tensor` where `needed`, one of needed_model_tensors(), says.
  Status place(const NeededTensor& needed, const TensorView& tensor);

  ModelConfig config_;
  PrecisionPlan precision_;
  Matrix embed_;  // [vocab, hidden]
  Matrix head_;   // [vocab, hidden]
  std::vector<float> final_norm_;
  Rope rope_;
  std::vector<std::shared_ptr<const LayerWeights>> layers_;
};

}  // namespace chimera
