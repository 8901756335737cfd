// Computes tensors of a plan: first measures one (is it merged at all, and with which thresholds),
// then gives its rows. Used for files and for memory alike.
//
// Memory: a chunk of every parent per thread (kChunkElements); nothing grows with a tensor. Results
// do not depend on the number of threads: sums go chunk by chunk in a fixed order.
//
// Thread safety: measure() by one thread, which owns the pool; rows() from any number of threads,
// each with its own Scratch.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "base/threads/thread_pool.h"
#include "experts/assembly/plan.h"

namespace chimera {

/// Elements that are looked at together: 256 KiB of F32 per parent fit the second-level cache
/// beside the sums.
inline constexpr int64_t kChunkElements = 1 << 16;

/// Rows of `tensor` in a chunk.
int64_t chunk_rows(const TensorData& tensor);

/// What measuring found.
struct Measured {
  bool merged = false;  // false: the base's own bytes
  Merge merge;          // complete
};

struct AssemblyScratch {
  std::vector<std::vector<float>> parents;
  std::vector<double> sums;
  std::vector<std::byte> dense;  // of whole slices
};

class Assembler {
 public:
  /// `release`: pages of mapped parents are given back once they were measured, where a tensor has
  /// more than `release_above` bytes in all parents.
  Assembler(const AssemblyPlan& plan, ThreadPool& pool, uint64_t release_above)
      : plan_(plan), pool_(pool), release_above_(release_above) {}

  Measured measure(const PlannedTensor& tensor) const;

  /// Rows [begin, end) of the result, of tensor.dtype, to `out`. data_corrupt naming tensor, parent
  /// and row where a number is not finite; failed_precondition where the result does not fit dtype.
  Status rows(const PlannedTensor& tensor, const Measured& measured, int64_t begin, int64_t end,
              std::byte* out, AssemblyScratch& scratch) const;

 private:
  bool any_difference(const PlannedTensor& tensor) const;
  double largest_difference(const PlannedTensor& tensor) const;
  void set_slerp(const PlannedTensor& tensor, Merge& merge) const;
  double trim_threshold(const PlannedTensor& tensor, size_t parent, double density) const;
  void release(const PlannedTensor& tensor, int64_t begin, int64_t end) const;
  Status copy_base(const PlannedTensor& tensor, int64_t begin, int64_t end, std::byte* out,
                   AssemblyScratch& scratch) const;

  const AssemblyPlan& plan_;
  ThreadPool& pool_;
  const uint64_t release_above_;
};

}  // namespace chimera
