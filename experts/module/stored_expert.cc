#include "experts/module/stored_expert.h"

#include <algorithm>
#include <cstring>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "compute/tensor/memory.h"

namespace chimera {
namespace {

// Rows and columns that are moved together: 64 columns of 64 rows of 4 bytes fit the L1 cache.
constexpr int64_t kTile = 64;

#ifdef __SSE2__
/// to[r * to_row + c] = from[r + c * from_col] for 8 x 8 elements of two bytes.
void transpose_8x8(const uint16_t* from, int64_t from_col, uint16_t* to, int64_t to_row) {
  __m128i in[8], a[8], b[8];
  for (int64_t c = 0; c < 8; ++c)
    in[c] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + c * from_col));
  for (int i = 0; i < 4; ++i) {  // pairs of columns
    a[i] = _mm_unpacklo_epi16(in[2 * i], in[2 * i + 1]);
    a[i + 4] = _mm_unpackhi_epi16(in[2 * i], in[2 * i + 1]);
  }
  for (int i = 0; i < 8; i += 2) {  // fours
    b[i] = _mm_unpacklo_epi32(a[i], a[i + 1]);
    b[i + 1] = _mm_unpackhi_epi32(a[i], a[i + 1]);
  }
  for (int half = 0; half < 2;
       ++half) {  // rows 0 to 3 come from a[0..3], rows 4 to 7 from the rest
    for (int i = 0; i < 2; ++i) {
      const __m128i low = b[4 * half + i], high = b[4 * half + 2 + i];
      uint16_t* row = to + (4 * half + 2 * i) * to_row;
      _mm_storeu_si128(reinterpret_cast<__m128i*>(row), _mm_unpacklo_epi64(low, high));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(row + to_row), _mm_unpackhi_epi64(low, high));
    }
  }
}

/// What move_tiles does, for the transposition of BF16 stacks, which is most of such a load. False:
/// not of that kind, nothing was done.
bool transpose_u16(const std::byte* from, int64_t from_row, int64_t from_col, std::byte* to,
                   int64_t to_row, int64_t to_col, int64_t rows, int64_t cols) {
  if (from_row != 1 || to_col != 1 || rows % 8 != 0 || cols % 8 != 0) return false;
  const auto* source = reinterpret_cast<const uint16_t*>(from);
  auto* target = reinterpret_cast<uint16_t*>(to);
  for (int64_t r0 = 0; r0 < rows; r0 += kTile) {
    for (int64_t c = 0; c < cols; c += 8) {
      for (int64_t r = r0; r < std::min(rows, r0 + kTile); r += 8)
        transpose_8x8(source + r + c * from_col, from_col, target + r * to_row + c, to_row);
    }
  }
  return true;
}
#endif

template <size_t kUnit>
void move_tiles(const std::byte* from, int64_t from_row, int64_t from_col, std::byte* to,
                int64_t to_row, int64_t to_col, int64_t rows, int64_t cols) {
  constexpr auto kBytes = static_cast<int64_t>(kUnit);
  for (int64_t r0 = 0; r0 < rows; r0 += kTile) {
    for (int64_t c0 = 0; c0 < cols; c0 += kTile) {
      for (int64_t r = r0; r < std::min(rows, r0 + kTile); ++r) {
        for (int64_t c = c0; c < std::min(cols, c0 + kTile); ++c) {
          std::memcpy(to + (r * to_row + c * to_col) * kBytes,
                      from + (r * from_row + c * from_col) * kBytes, kUnit);
        }
      }
    }
  }
}

/// Steps in units.
void move_units(const std::byte* from, int64_t from_row, int64_t from_col, std::byte* to,
                int64_t to_row, int64_t to_col, int64_t rows, int64_t cols, size_t unit) {
  if (from_col == 1 && to_col == 1) {
    const auto bytes = static_cast<int64_t>(unit);
    for (int64_t r = 0; r < rows; ++r) {
      std::memcpy(to + r * to_row * bytes, from + r * from_row * bytes,
                  static_cast<size_t>(cols) * unit);
    }
    return;
  }
#ifdef __SSE2__
  if (unit == 2 && transpose_u16(from, from_row, from_col, to, to_row, to_col, rows, cols)) return;
#endif
  if (unit == 1) move_tiles<1>(from, from_row, from_col, to, to_row, to_col, rows, cols);
  if (unit == 2) move_tiles<2>(from, from_row, from_col, to, to_row, to_col, rows, cols);
  if (unit == 4) move_tiles<4>(from, from_row, from_col, to, to_row, to_col, rows, cols);
  if (unit == 8) move_tiles<8>(from, from_row, from_col, to, to_row, to_col, rows, cols);
}

StackLayout::Place place(size_t stack, Strides at, std::vector<int64_t> shape) {
  return {stack, at, std::move(shape)};
}

/// gate_up [2 * width, hidden], gate rows first; down [hidden, width].
StackLayout out_in_layout(const TensorNames& names, int64_t hidden, int64_t width) {
  StackLayout layout;
  layout.stacks = {{names.fused_gate_up, {2 * width, hidden}}, {names.fused_down, {hidden, width}}};
  for (size_t p = 0; p < 2; ++p) {
    const int64_t offset = p == 0 ? 0 : width * hidden;
    layout.places[p][kWeightPart] = place(0, {width, hidden, offset, hidden, 1}, {width, hidden});
  }
  layout.places[2][kWeightPart] = place(1, {hidden, width, 0, width, 1}, {hidden, width});
  return layout;
}

/// gate_up [hidden, 2 * width] with gate columns first, or alternating; down [width, hidden].
StackLayout in_out_layout(const TensorNames& names, int64_t hidden, int64_t width) {
  const bool alternating = names.fused_layout == FusedLayout::kInOutInterleaved;
  StackLayout layout;
  layout.stacks = {{names.fused_gate_up, {hidden, 2 * width}}, {names.fused_down, {width, hidden}}};
  for (size_t p = 0; p < 2; ++p) {
    const int64_t offset = p == 0 ? 0 : alternating ? 1 : width;
    layout.places[p][kWeightPart] =
        place(0, {width, hidden, offset, alternating ? 2 : 1, 2 * width}, {width, hidden});
  }
  layout.places[2][kWeightPart] = place(1, {hidden, width, 0, 1, hidden}, {hidden, width});
  return layout;
}

/// Rows as in gpt_oss: blocks [2 * width, hidden / 32, 16] alternate gate and up.
StackLayout mxfp4_layout(const TensorNames& names, int64_t hidden, int64_t width) {
  const int64_t in_blocks = hidden / kMxfp4Block;
  const int64_t width_blocks = width / kMxfp4Block;
  const bool alternating = names.fused_layout == FusedLayout::kInOutInterleaved;
  StackLayout layout;
  layout.encoding = Encoding::kMxfp4;
  layout.stacks = {
      {names.fused_gate_up + names.fused_blocks_suffix, {2 * width, in_blocks, kMxfp4BlockBytes}},
      {names.fused_gate_up + names.fused_scales_suffix, {2 * width, in_blocks}},
      {names.fused_down + names.fused_blocks_suffix, {hidden, width_blocks, kMxfp4BlockBytes}},
      {names.fused_down + names.fused_scales_suffix, {hidden, width_blocks}}};
  const int64_t in_bytes = in_blocks * kMxfp4BlockBytes;
  const int64_t width_bytes = width_blocks * kMxfp4BlockBytes;
  const int64_t step = alternating ? 2 : 1;
  for (size_t p = 0; p < 2; ++p) {
    const int64_t first = p == 0 ? 0 : alternating ? 1 : width;  // row of the stack
    layout.places[p][kWeightPart] =
        place(0, {width, in_bytes, first * in_bytes, step * in_bytes, 1},
              {width, in_blocks, kMxfp4BlockBytes});
    layout.places[p][kScalePart] =
        place(1, {width, in_blocks, first * in_blocks, step * in_blocks, 1}, {width, in_blocks});
  }
  layout.places[2][kWeightPart] =
      place(2, {hidden, width_bytes, 0, width_bytes, 1}, {hidden, width_blocks, kMxfp4BlockBytes});
  layout.places[2][kScalePart] =
      place(3, {hidden, width_blocks, 0, width_blocks, 1}, {hidden, width_blocks});
  return layout;
}

/// gate_up_bias [2 * width] in the order of the gate_up rows or columns; down_bias [hidden].
void add_biases(const TensorNames& names, int64_t hidden, int64_t width, StackLayout& layout) {
  const bool alternating = names.fused_layout == FusedLayout::kInOutInterleaved;
  const size_t first = layout.stacks.size();
  layout.stacks.push_back({names.fused_gate_up_bias, {2 * width}});
  layout.stacks.push_back({names.fused_down_bias, {hidden}});
  for (size_t p = 0; p < 2; ++p) {
    const int64_t offset = p == 0 ? 0 : alternating ? 1 : width;
    layout.places[p][kBiasPart] = place(first, {width, 1, offset, alternating ? 2 : 1, 1}, {width});
  }
  layout.places[2][kBiasPart] = place(first + 1, {hidden, 1, 0, 1, 1}, {hidden});
}

}  // namespace

const StoredPart* part_of(const StoredProjection& projection, Part part) {
  if (part == kWeightPart) return &projection.weight;
  const std::optional<StoredPart>& found = part == kScalePart ? projection.scale : projection.bias;
  return found ? &*found : nullptr;
}

std::string_view part_tail(Encoding encoding, Part part) {
  if (part == kBiasPart) return ".bias";
  if (part == kScalePart)
    return encoding == Encoding::kFp8 ? ".weight_scale_inv" : ".weight_scales";
  return encoding == Encoding::kMxfp4 ? ".weight_blocks" : ".weight";
}

size_t unit_bytes(DType dtype) { return static_cast<size_t>(unit_of(dtype).bytes); }

TensorView dense(const StoredPart& part, std::string name) {
  if (is_packed_type(part.tensor.dtype)) {  // whole matrices only
    TensorView view = part.tensor;
    view.name = std::move(name);
    return view;
  }
  const size_t unit = unit_bytes(part.tensor.dtype);
  const Strides& at = part.at;
  const std::byte* from = part.tensor.bytes.data() + static_cast<size_t>(at.offset) * unit;
  if (!at.dense()) {
    std::byte* to = nullptr;
    TensorView copy = make_unset_tensor(std::move(name), part.tensor.dtype, part.shape, &to);
    move_units(from, at.row_step, at.col_step, to, at.cols, 1, at.rows, at.cols, unit);
    return copy;
  }
  TensorView view = part.tensor;
  view.name = std::move(name);
  view.shape = part.shape;
  view.bytes = {from, static_cast<size_t>(at.rows * at.cols) * unit};
  return view;
}

void scatter(const TensorView& from, const Strides& at, std::byte* slice) {
  const size_t unit = unit_bytes(from.dtype);
  move_units(from.bytes.data(), at.cols, 1, slice + static_cast<size_t>(at.offset) * unit,
             at.row_step, at.col_step, at.rows, at.cols, unit);
}

StoredPart whole_part(const TensorView& tensor) {
  const int64_t rows = tensor.shape.empty() ? 1 : tensor.shape[0];
  const int64_t cols = rows == 0 ? 0 : tensor.elements() / rows / unit_of(tensor.dtype).elements;
  return {tensor, {rows, cols, 0, cols, 1}, tensor.shape};
}

Result<QuantMatrix> quant_matrix(const StoredProjection& projection, BlockShape block) {
  const StoredPart& weight = projection.weight;
  const StoredPart& scale = *projection.scale;
  if (projection.encoding == Encoding::kFp8) {
    return fp8_matrix(dense(weight, weight.tensor.name), dense(scale, scale.tensor.name), block);
  }
  QuantMatrix m;
  m.format = QuantMatrix::Format::kMxfp4;
  m.rows = projection.rows;
  m.cols = projection.cols;
  m.codes = weight.tensor.bytes.data() + weight.at.offset;
  m.code_step = weight.at.row_step;
  m.scales = scale.tensor.bytes.data() + scale.at.offset;
  m.scale_step = scale.at.row_step;
  m.owner = weight.tensor.owner;
  m.scale_owner = scale.tensor.owner;
  return m;
}

StackLayout plain_stack_layout(const ModelConfig& config) {
  const TensorNames& names = tensor_names(config);
  const int64_t hidden = config.hidden_size;
  const int64_t width = config.intermediate_size;
  StackLayout layout = names.fused_layout == FusedLayout::kOutIn
                           ? out_in_layout(names, hidden, width)
                           : in_out_layout(names, hidden, width);
  if (!names.fused_gate_up_bias.empty()) add_biases(names, hidden, width, layout);
  return layout;
}

std::optional<StackLayout> stack_layout(const Checkpoint& checkpoint, const ModelConfig& config,
                                        int64_t layer) {
  const TensorNames& names = tensor_names(config);
  const auto has = [&](const std::string& tail) {
    return checkpoint.find(layer_tensor(config, layer, tail)) != nullptr;
  };
  if (config.dense_base || names.fused_gate_up.empty()) return std::nullopt;
  if (has(names.fused_gate_up)) return plain_stack_layout(config);
  if (names.fused_blocks_suffix.empty() || !has(names.fused_gate_up + names.fused_blocks_suffix)) {
    return std::nullopt;
  }
  const int64_t hidden = config.hidden_size;
  const int64_t width = config.intermediate_size;
  StackLayout layout = mxfp4_layout(names, hidden, width);
  if (!names.fused_gate_up_bias.empty()) add_biases(names, hidden, width, layout);
  return layout;
}

}  // namespace chimera
