// Packed matrices (compute/tensor/packed_tensor.h) in a safetensors file, whose format has no
// dtypes for them: a tensor of bytes, U8 [n], and an entry of "__metadata__" that says what it is,
//
//   "chimera.packed": "{\"layout\": 1, \"matrices\": {\"layers.0.experts.0.up_proj.weight\":
//                       {\"format\": \"q8\", \"shape\": [1024, 2048], \"exponent\": -13}, ...}}"
//
// The bytes are those of weight_format.h, filled up with zeros to a multiple of 64, so that
// matrices which follow one another all begin at one; the header of such a file is filled up
// likewise. One that begins elsewhere is refused: it would have to be copied to be used. W is
// integer * block scale * 2^exponent. `layout` counts changes of weight_format.h: a file of another
// one is refused, and is made again of what it was packed from. Internal to SafetensorsFile and
// write_safetensors.
//
// Thread safety: free functions.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "base/status.h"
#include "compute/tensor/tensor.h"

namespace chimera {

inline constexpr const char* kPackedKey = "chimera.packed";
inline constexpr int64_t kPackedLayout = 1;

/// Gives the tensors that the entry names, if there is one, their dtype, shape and scale. `image`:
/// where the file begins in memory. unimplemented: of another layout; data_corrupt: no such entry,
/// a tensor that is not there, has other bytes or does not begin at a multiple of 64.
Status apply_packed(const std::map<std::string, std::string>& metadata, const std::byte* image,
                    std::vector<TensorView>& tensors, const std::string& label);

/// Bytes that the file has for it, zeros behind it included. REQUIRES: is_packed_type(t.dtype).
uint64_t stored_packed_bytes(const TensorView& t);
/// The text of the entry; empty when no tensor is packed.
std::string packed_text(const std::vector<TensorView>& tensors);

}  // namespace chimera
