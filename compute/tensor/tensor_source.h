// A tensor that no file holds as such: it is made from others when somebody needs its numbers, so
// that a checkpoint of many of them can be looked at without the memory that all of them take.
//
// Thread safety: immutable; any number of threads may load at the same time.
#pragma once

#include <cstddef>
#include <span>

#include "base/status.h"
#include "compute/tensor/tensor.h"

namespace chimera {

class TensorSource {
 public:
  TensorSource() = default;
  TensorSource(const TensorSource&) = delete;
  TensorSource& operator=(const TensorSource&) = delete;
  virtual ~TensorSource() = default;

  /// Writes all bytes of the tensor. data_corrupt: numbers that say nothing.
  virtual Status make(std::byte* to) const = 0;
  /// What it is made from.
  virtual std::span<const TensorView> parts() const = 0;
};

/// A view whose bytes `source` makes; dense_bytes(dtype, shape) has been checked to be there.
TensorView unmade_tensor(std::string name, DType dtype, std::vector<int64_t> shape,
                         std::shared_ptr<const TensorSource> source);

/// `t` with its bytes in memory: itself, or made anew in memory of its own. Errors as of
/// TensorSource::make; resource_exhausted: no memory.
Result<TensorView> loaded(const TensorView& t);

}  // namespace chimera
