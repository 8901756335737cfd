// Checkpoints of random weights: the tensors that a shape needs, and the files that hold them.
//
// Thread safety: free functions.
#pragma once

#include <string>

#include "base/status.h"
#include "bench/synth/random_weights.h"
#include "bench/synth/shape.h"

namespace chimera::bench {

/// Writes config.json and model.safetensors into `directory`, which must not exist yet. `type`:
/// f32, f16 or bf16 of all tensors; routed experts are one tensor each. invalid_argument: another
/// type; already_exists; unimplemented: experts that the family stores in no form of their own.
Status write_synthetic(const Shape& shape, StoredType type, const std::string& directory);

/// The same model as one GGUF file: matrices as `type`, the head one step finer for types of four
/// bits (Q6_K, as converters do), vectors and routers F32. Its vocabulary is made up
/// of bytes and numbers; below 259 tokens it has none.
/// unimplemented, naming it, for a family that this writer has no names for.
Status write_synthetic_gguf(const Shape& shape, StoredType type, const std::string& path);

}  // namespace chimera::bench
