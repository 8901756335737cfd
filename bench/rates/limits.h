// What this machine can do at most with a number of threads, measured when it is asked for, so that
// a figure and its limit come from the same moment.
//
// Thread safety: by the owner of the pool.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "base/threads/thread_pool.h"
#include "compute/kernels/kernels.h"
#include "compute/tensor/tensor.h"
#include "rates/kernels_peer.h"

namespace chimera::bench {

class Limits {
 public:
  /// Streams per thread that read_gbs is measured with.
  static constexpr int kStreams[] = {1, 2, 4, 8};

  /// `pool` outlives this. Takes half a GiB: larger than any last-level cache of the machines this
  /// runs on, so that reads come from memory. Throws std::bad_alloc.
  explicit Limits(ThreadPool& pool);

  /// GB/s of all threads together, each reading `streams` streams at once, fetched ahead.
  double read_gbs(int streams);
  /// The same with the number of streams that was best when it was first asked for.
  double read_gbs();
  /// GFLOP/s of fused multiply-adds, and GOP/s of products of 8-bit integers summed into 32 bits,
  /// in registers; 0 where there is no peer for the instruction set.
  double multiply_add_gflops();
  double int8_gops();
  /// GFLOP/s of matrix products whose weights are in the caches: the larger of what the kernels
  /// make of `format` and, for f32 and bf16, what Eigen makes of f32.
  double product_gflops(WeightFormat format);

 private:
  /// Runs `body` over `shares` shares on all threads; seconds.
  template <class Body>
  double timed(int64_t shares, Body body);
  double kernel_gflops(WeightFormat format);
  double eigen_gflops();

  ThreadPool& pool_;
  const Peer* peer_;
  std::shared_ptr<std::byte[]> memory_;
  int best_streams_ = 0;
};

/// Null where neither is supported: then there is no ratio to Eigen and no limit of arithmetic.
const Peer* peer_of(Isa isa);

/// `count` matrices of a shape in a format, each in memory of its own, of the same `values` [rows *
/// cols] where the format is made from such (K and table formats: of any numbers).
std::vector<Matrix> copies_of(const std::vector<float>& values, int64_t rows, int64_t cols,
                              WeightFormat format, int64_t count);

}  // namespace chimera::bench
