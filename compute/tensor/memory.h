// Memory for weights that cannot be used as they are stored.
#pragma once

#include <cstddef>
#include <memory>

namespace chimera {

/// `bytes` bytes, contents undefined, aligned to 64 (a cache line, and one AVX-512 register); large
/// blocks in huge pages where the system has them. Null when there is no memory. Any thread.
std::shared_ptr<std::byte[]> allocate_weights(size_t bytes);

}  // namespace chimera
