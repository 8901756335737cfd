// One expert as a file stores it: where its numbers stand inside the tensors, without moving them.
//
// A checkpoint may hold an expert as three tensors of its own or as a slice of stacks over all
// experts, and a stack may be transposed (llama4), interleave gate and up (gpt_oss) or be quantised
// (MXFP4, FP8). All of these are rearrangements: `dense` brings a part into the form a module
// stores, row by row [outputs, inputs], and `scatter` brings it back, bit for bit.
//
// Lifetime: views share the memory of the file they come from.
//
// Thread safety: values and free functions, from any thread.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backbone/checkpoint/checkpoint.h"
#include "backbone/families/model_config.h"
#include "base/status.h"
#include "compute/tensor/block_quant.h"
#include "compute/tensor/tensor.h"

namespace chimera {

/// How the numbers of a weight are coded. kPlain: one tensor whose dtype says it, F32, F16, BF16 or
/// a block type.
enum class Encoding : uint8_t { kPlain, kFp8, kMxfp4 };

/// "gate_proj", "up_proj", "down_proj": the order of the projections everywhere.
inline constexpr std::array<std::string_view, 3> kProjections{"gate_proj", "up_proj", "down_proj"};

/// Rows and columns of units (elements; blocks; bytes of MXFP4 codes) at fixed steps.
struct Strides {
  int64_t rows = 0;
  int64_t cols = 1;
  int64_t offset = 0;    // of unit [0, 0], in units
  int64_t row_step = 0;  // units between rows
  int64_t col_step = 1;

  bool dense() const { return col_step == 1 && row_step == cols; }
};

/// A part of one projection inside `tensor`, which is the tensor's slice of this expert.
struct StoredPart {
  TensorView tensor;
  Strides at;
  std::vector<int64_t> shape;  // of the dense form
};

/// gate, up: rows = width, cols = hidden; down: rows = hidden, cols = width.
struct StoredProjection {
  Encoding encoding = Encoding::kPlain;
  int64_t rows = 0;
  int64_t cols = 0;
  StoredPart weight;                // [rows, cols]; kMxfp4: [rows, cols / 32, 16]
  std::optional<StoredPart> scale;  // kFp8: F32 per block; kMxfp4: [rows, cols / 32]
  std::optional<StoredPart> bias;   // [rows]
};
using StoredExpert = std::array<StoredProjection, 3>;

enum Part : size_t { kWeightPart, kScalePart, kBiasPart, kParts };
/// Null when the projection has no such part.
const StoredPart* part_of(const StoredProjection& projection, Part part);
/// ".weight", ".weight_scale_inv", ".weight_blocks", ".weight_scales" or ".bias": what follows the
/// projection's name in a module.
std::string_view part_tail(Encoding encoding, Part part);

/// Bytes of one unit of a tensor: an element, or a block.
size_t unit_bytes(DType dtype);
/// The part row by row, named `name`: in place when it is stored so, else a copy.
TensorView dense(const StoredPart& part, std::string name);
/// Writes `from` (dense) to `at` inside the slice that begins at `slice`.
void scatter(const TensorView& from, const Strides& at, std::byte* slice);
/// A dense tensor as a part.
StoredPart whole_part(const TensorView& tensor);

/// The quantised weight of a projection, in place. REQUIRES: encoding is not kPlain, and shapes
/// were checked.
Result<QuantMatrix> quant_matrix(const StoredProjection& projection, BlockShape block);

/// One tensor over all experts of a layer, [E, shape...].
struct StackSpec {
  std::string tail;  // name after the layer prefix
  std::vector<int64_t> shape;
};

/// Where every part of an expert stands inside the stacks of a layer.
struct StackLayout {
  struct Place {
    size_t stack = 0;
    Strides at;
    std::vector<int64_t> shape;  // of the dense form
  };
  Encoding encoding = Encoding::kPlain;
  std::vector<StackSpec> stacks;
  std::array<std::array<std::optional<Place>, kParts>, 3> places;  // [projection][part]
};

/// The stacks in which `checkpoint` keeps the experts of `layer`; none when every expert has
/// tensors of its own. Decided by the family and the names that are there.
std::optional<StackLayout> stack_layout(const Checkpoint& checkpoint, const ModelConfig& config,
                                        int64_t layer);

/// The stacks of plain numbers in which the family stores fused experts: what MXFP4 stacks become
/// when they are widened. REQUIRES: the family has a fused layout.
StackLayout plain_stack_layout(const ModelConfig& config);

}  // namespace chimera
