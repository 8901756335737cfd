// The part of a GGUF file before its data. Internal to GgufFile.
//
// Thread safety: free function.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backbone/gguf/gguf_file.h"
#include "base/status.h"
#include "compute/tensor/tensor.h"

namespace chimera {

struct GgufHeader {
  GgufMetadata metadata;
  std::vector<TensorView> tensors;  // in file order
};

/// Parses `image`, of which no more than GgufFile::kMaxHeaderBytes are looked at; the views point
/// into it and share `owner`. Errors start with `label`.
Result<GgufHeader> parse_gguf_header(std::span<const std::byte> image,
                                     const std::shared_ptr<const void>& owner,
                                     const std::string& label);

}  // namespace chimera
