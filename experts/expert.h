// Expert: one feed-forward network of one MoE layer, whatever it is made of.
//
// The interface is batch-in, batch-out: the router hands over all rows that chose this expert in
// this step, over all sequences and epochs. Weights in memory, a shared library and a sandboxed
// process all fit behind it.
//
// Thread safety: forward is const and may be called by one pass at a time per Scratch; different
// passes (the engine and a probe) may run concurrently with their own Scratch.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "backbone/kernels.h"
#include "backbone/status.h"
#include "backbone/tensor.h"
#include "backbone/thread_pool.h"
#include "experts/manifest.h"

namespace chimera {

/// Everything a forward pass lends to an expert.
struct ExpertContext {
  const Kernels& kernels;
  ThreadPool& pool;
  std::vector<float>& scratch;  // grows as needed; contents undefined between calls
  uint64_t deadline_ns = 0;     // steady clock; 0: none. For experts that can give up
  const std::atomic<uint32_t>* cancel = nullptr;  // not 0: give up
  uint64_t epoch = 0;                             // of the table, for logs only
};

class Expert {
 public:
  virtual ~Expert() = default;
  /// Overwrites y = expert(x). x, y: [rows, hidden], distinct, dense. Row r of y depends on row r
  /// of x alone, bitwise, whatever `rows` is. A failure concerns all rows.
  virtual Status forward(const float* x, int64_t rows, float* y, ExpertContext& ctx) const = 0;
  virtual uint64_t resident_bytes() const = 0;
  /// What the router does with rows that chose this expert when forward failed.
  virtual FailurePolicy on_failure() const { return FailurePolicy::kFail; }
};

/// down(silu(gate x) * up x), the SwiGLU expert of every supported family (Shazeer 2020,
/// arXiv 2002.05202). gate, up: [intermediate, hidden]; down: [hidden, intermediate].
std::shared_ptr<const Expert> make_swiglu_expert(Matrix gate, Matrix up, Matrix down);

}  // namespace chimera
