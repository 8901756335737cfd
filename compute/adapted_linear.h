// Linear layers and what adapters add to them, in two loops over the pool however many adapters
// there are: the products with the reductions of all changes beside them, then the additions.
//
// An element has the bits that linear() and add_low_rank() after it give it.
//
// Thread safety: as linear(), by the pool's owner.
#pragma once

#include <cstdint>
#include <span>

#include "compute/linear.h"
#include "compute/low_rank.h"

namespace chimera {

/// All `products` for the same number of rows, then y += `changes` in their order, whose `y` are in
/// those of the products. REQUIRES: the x of no op is among the y. `scratch` is lent and grows.
void adapted_linear(const Kernels& kernels, ThreadPool& pool, int64_t rows,
                    std::span<const LinearOp> products, std::span<LowRankOp> changes,
                    FloatBuffer& scratch);

}  // namespace chimera
