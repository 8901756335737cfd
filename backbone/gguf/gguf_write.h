// Writer of the GGUF container (gguf_file.h says what it is made of).
//
// Thread safety: free functions.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/io/env.h"
#include "base/status.h"
#include "compute/tensor/tensor.h"

namespace chimera {

/// Metadata in the types that readers of the format expect: counts are u32, numbers f32, kinds of
/// tokens i32.
using GgufEntry =
    std::pair<std::string, std::variant<bool, uint32_t, float, std::string, std::vector<int32_t>,
                                        std::vector<float>, std::vector<std::string>>>;

/// Writes metadata and tensors in the order given, by temp file, fsync and rename: `path` is
/// complete or as it was. Shapes are outermost first, as everywhere; what is still to be made
/// (tensor_source.h) is made when its turn comes.
/// invalid_argument: a key or name twice, empty or too long, a dtype that the format does not have,
/// no or more than four dimensions, bytes that do not match shape and dtype.
Status write_gguf(const std::string& path, const std::vector<GgufEntry>& metadata,
                  const std::vector<TensorView>& tensors, Env& env = Env::system());

}  // namespace chimera
