// Expert: one feed-forward network of one MoE layer, whatever it is made of.
//
// The interface is batch-in, batch-out: the router hands over all rows that chose this expert in
// this step, over all sequences and epochs. Weights in memory, a shared library and a sandboxed
// process all fit behind it; which executor is given its calls (executor.h) is the expert's to say.
//
// Thread safety: forward is const and may be called by one pass at a time per Scratch; different
// passes (the engine and a probe) may run concurrently with their own Scratch.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "backbone/families/model_config.h"
#include "base/status.h"
#include "base/threads/thread_pool.h"
#include "compute/kernels/kernels.h"
#include "compute/tensor/block_quant.h"
#include "compute/tensor/float_buffer.h"
#include "compute/tensor/tensor.h"
#include "experts/failure_policy.h"

namespace chimera {

/// Everything a forward pass lends to an expert.
struct ExpertContext {
  const Kernels& kernels;
  ThreadPool& pool;
  FloatBuffer& scratch;  // grows as needed; contents undefined between calls
  /// When nobody wants any of the rows any more: the latest deadline of their requests, as
  /// steady_ns; 0: a row has none. An expert may give up then (deadline_exceeded), and not before:
  /// the rows of a request with more time lie in the same call.
  uint64_t deadline_ns = 0;
  /// When the expert's own time for the call is up, where that began before the call (handed over
  /// to another process), as steady_ns; 0: it begins with the call.
  uint64_t limit_ns = 0;
  /// The forward pass that the call is part of, a number of its own in this process; 0: of none (a
  /// self-test). What computes elsewhere may be waited for so long per pass.
  uint64_t pass = 0;
  const std::atomic<uint32_t>* cancel = nullptr;  // not 0: give up
  /// [rows] epoch of the routing table that each row is on, lent like x; null: they are on none (a
  /// self-test).
  const uint64_t* row_epochs = nullptr;
};

class ExpertExecutor;
class FeedForwardExpert;

class Expert {
 public:
  virtual ~Expert() = default;
  /// Overwrites y = expert(x). x, y: [rows, hidden], distinct, dense. Row r of y depends on row r
  /// of x alone, bitwise, whatever `rows` is. A failure concerns all rows.
  virtual Status forward(const float* x, int64_t rows, float* y, ExpertContext& ctx) const = 0;
  /// The expert to run now: itself, or the one that stands behind it while its weights are in
  /// memory. As lent as those.
  virtual const Expert& current() const { return *this; }
  /// Whom its calls are given to, which ends with the expert or later. Of a current() expert.
  virtual ExpertExecutor& executor() const;
  /// The expert itself when it is weights in memory, for who reads them or adds to their products.
  /// Of a current() expert.
  virtual const FeedForwardExpert* feed_forward() const { return nullptr; }
  virtual uint64_t resident_bytes() const = 0;
  /// What the router does with rows that chose this expert when forward failed.
  virtual FailurePolicy on_failure() const { return FailurePolicy::kFail; }
};

/// One weight of an expert: a matrix that the kernels take, or a quantised one that is widened a
/// few rows at a time as it is used (so it costs the memory of its file, and no more).
struct ExpertWeight {
  Matrix matrix;  // unused when `quantised` is set
  std::optional<QuantMatrix> quantised;

  int64_t rows() const { return quantised ? quantised->rows : matrix.rows; }
  int64_t cols() const { return quantised ? quantised->cols : matrix.cols; }
  uint64_t bytes() const { return quantised ? quantised->bytes() : matrix.bytes(); }
};

struct ExpertWeights {
  ExpertWeight gate, up, down;  // gate, up: [width, hidden]; down: [hidden, width]
  std::vector<float> gate_bias, up_bias, down_bias;  // [width], [width], [hidden]; or empty
};

/// A feed-forward network of the given kind, with g = gate x + b_gate and u = up x + b_up:
///   kSwiGlu         down(silu(g) * u) + b_down   (Shazeer 2020, arXiv 2002.05202)
///   kClampedSwiGlu  g = min(g, 7), u = clamp(u, -7, 7),
///                   down((u + 1) * g * sigmoid(1.702 g)) + b_down   (gpt_oss)
std::shared_ptr<const Expert> make_expert(ExpertKind kind, ExpertWeights weights);
/// kSwiGlu without biases.
std::shared_ptr<const Expert> make_swiglu_expert(Matrix gate, Matrix up, Matrix down);

}  // namespace chimera
