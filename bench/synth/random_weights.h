// Tensors of random weights that take no memory before they are written.
//
// A weight is +-1.m x 2^e with random sign and mantissa m; blocks have random codes and scales of
// the size that is asked for. The same seed and name give the same bytes on every machine.
//
// Thread safety: values and free functions; what they make is immutable.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/enum_names.h"
#include "base/status.h"
#include "compute/tensor/tensor.h"

namespace chimera::bench {

/// What the weights of a file are stored as.
enum class StoredType : uint8_t { kF32, kF16, kBF16, kQ8_0, kQ4_0, kQ4_K, kQ6_K, kMXFP4 };
inline constexpr auto kStoredTypeNames =
    enum_names<StoredType>("f32", "f16", "bf16", "q8_0", "q4_0", "q4_k", "q6_k", "mxfp4");

DType dtype_of(StoredType type);

/// The size of weights whose products are about as large as their `inputs` inputs.
double even_size(int64_t inputs);
/// A matrix [rows, cols] of weights of the root mean square `size`. invalid_argument: rows that are
/// no whole blocks.
Result<TensorView> random_matrix(std::string name, DType dtype, uint64_t seed, int64_t rows,
                                 int64_t cols, double size);
/// A stack [seeds, rows, cols], each as it would be made alone.
Result<TensorView> random_stack(std::string name, DType dtype, std::vector<uint64_t> seeds,
                                int64_t rows, int64_t cols, double size);
/// A vector of numbers (F32, F16 or BF16): ones, or random ones of about `size`.
TensorView ones(std::string name, DType dtype, int64_t n);
TensorView random_vector(std::string name, DType dtype, uint64_t seed, int64_t n);
/// Of a tensor by its name.
uint64_t seed_of(uint64_t seed, std::string_view name);

}  // namespace chimera::bench
