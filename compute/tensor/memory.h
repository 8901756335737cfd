// Memory for weights and tensors that cannot be used as they are stored.
//
// Thread safety: free functions, from any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "compute/tensor/tensor.h"

namespace chimera {

/// `bytes` bytes, contents undefined, aligned to 64 (a cache line, and one AVX-512 register); large
/// blocks in huge pages where the system has them. Null when there is no memory. Any thread.
std::shared_ptr<std::byte[]> allocate_weights(size_t bytes);
/// What to answer then, `what` being for whom: resource_exhausted.
Status no_memory(const std::string& what, size_t bytes);

/// A tensor with memory of its own, `shape` of `dtype`, contents undefined. `bytes` writes into it.
/// Throws std::bad_alloc.
TensorView make_unset_tensor(std::string name, DType dtype, std::vector<int64_t> shape,
                             std::byte** bytes);
/// The same, zeroed.
TensorView make_tensor(std::string name, DType dtype, std::vector<int64_t> shape,
                       std::byte** bytes);

}  // namespace chimera
