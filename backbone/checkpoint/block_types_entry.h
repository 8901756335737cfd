// Blocks (compute/tensor/block_types.h) in a safetensors file, whose format has no dtypes for them:
// a tensor of bytes, U8 [..., bytes of a row], and an entry of "__metadata__" that says what it is,
//
//   "chimera.block_types": "{\"layers.0.experts.0.up_proj.weight\": \"Q4_K\", ...}"
//
// So other readers open the file, and what Chimera reads back is what it wrote. Internal to
// SafetensorsFile and write_safetensors, but for stored_form.
//
// Thread safety: free functions.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/status.h"
#include "compute/tensor/tensor.h"

namespace chimera {

inline constexpr const char* kBlockTypesKey = "chimera.block_types";

/// Gives the tensors that the entry names, if there is one, their dtype and shape. data_corrupt: no
/// object of names of types, a tensor that is not there or not whole blocks of bytes.
Status apply_block_types(const std::map<std::string, std::string>& metadata,
                         std::vector<TensorView>& tensors, const std::string& label);

/// The tensor as the file keeps it: itself, or bytes.
TensorView stored_form(const TensorView& tensor);
/// The text of the entry; empty when no tensor is in blocks.
std::string block_types_text(const std::vector<TensorView>& tensors);

}  // namespace chimera
