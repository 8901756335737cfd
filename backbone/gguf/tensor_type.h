// The numbers by which GGUF files name what a tensor is stored as.
//
// Thread safety: free functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "compute/tensor/tensor.h"

namespace chimera {

/// Nothing for a type that Chimera does not read.
std::optional<DType> gguf_dtype(uint32_t type);

/// The number of a dtype; nothing for one that the format does not have.
std::optional<uint32_t> gguf_type(DType dtype);

/// "IQ1_S" or "number 99", for messages about those that it does not read.
std::string gguf_type_name(uint32_t type);

/// Those that it reads, "F32, F16, BF16, …".
std::string gguf_type_list();

}  // namespace chimera
