// What several bundles make of the backbone's tensors: their average, by the weights that they
// state (BAR, Ai2 2026).
//
// Of bundles 1…n with weights w_i, in the order of the composition,
//
//   W = Σ_i ŵ_i V_i,   ŵ_i = w_i / Σ_j w_j
//
// over all n, where V_i is the tensor that bundle i has, W_0 + B_i A_i for one of low rank, and the
// checkpoint's W_0 for a bundle that leaves it alone. A tensor that none of them changes is not
// touched. With one bundle W = V_1.
//
// Sums are float64: the weights added in order; of each number Σ_r b_r a_r in the order of the
// ranks and then added to W_0; the terms ŵ_i V_i in the order of the bundles, beginning with the
// first. It is rounded once, to nearest even, to the dtype in which the checkpoint holds the
// tensor: the same bits whether it is written to a checkpoint or run, and by however many threads:
// each number is the work of one of them.
//
// Thread safety: free functions, from any thread; a pool is its caller's.
#pragma once

#include <span>
#include <vector>

#include "backbone/checkpoint/checkpoint.h"
#include "base/status.h"
#include "base/threads/thread_pool.h"
#include "experts/bundle/shared_tensors.h"

namespace chimera {

/// A bundle among those that are averaged.
struct WeightedChanges {
  double weight = 1.0;
  std::span<const SharedChange> changes;
};

/// The tensors that any of these bundles changes, in the order of the backbone, by its names and in
/// the dtypes of `checkpoint`; those of one bundle that has them in that dtype are its own, in
/// place. The threads of `pool` are in the background as the caller is (background.h), and all of
/// them stop when its work is given up (progress.h). unimplemented: the checkpoint holds one
/// quantised; data_corrupt: a number that its dtype does not hold; resource_exhausted: no memory;
/// cancelled: given up.
Result<std::vector<TensorView>> averaged_tensors(const Checkpoint& checkpoint,
                                                 const ModelConfig& config,
                                                 std::span<const WeightedChanges> bundles,
                                                 ThreadPool& pool);

/// What averaged_tensors() has in memory for one tensor at the most, beside what it gives, with so
/// many threads. `stored`: as the checkpoint holds it; `rank`: the sum of those of its changes.
uint64_t averaging_bytes(const NeededTensor& needed, DType stored, int64_t rank, int threads);

}  // namespace chimera
