// Products with packed weights (compute/tensor/weight_format.h). Private to this folder.
//
// Input rows are brought into integers of 8 bits, in the same blocks of 32 with one scale each, so
// a block is an exact sum of integer products and two scales. The order, the same in every variant:
//
//   s[b] = sum of q_x * q_w over the 32 inputs of block b           exact, int32
//   y    = fma(float(s[b]), scale_w[b] * scale_x[b], y)             for b = 0, 1, …
//
// with scale_x = Matrix::scale * largest |x| of the block / 127. K formats (k_layout.h) have blocks
// of 256 inputs, of which their group scales are part of the integers:
//
//   s[b] = sum of s[g] * code * q_x,  t[b] = sum of t[g] * q_x      exact, int32
//   y    = fma(float(s[b]), scale_w[b] * scale_x[b], y),
//          then fma(-float(t[b]), minimum_w[b] * scale_x[b], y)     for b = 0, 1, …
//
// (q3_k and q6_k: s[b] less the offset times the sum of s[g] * q_x, and no t.) Equal bits over
// instruction sets, tilings and batch sizes follow from that; a row depends on itself alone.
//
// What a variant P provides: quantize() and quantize_k() for one block of one row, and
// tile<F, M, N>(): M rows against N panels.
//
// Thread safety: pure functions; scratch memory is per thread.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>

#include "compute/kernels/kernels.h"
#include "compute/tensor/k_layout.h"

namespace chimera::kernels_impl {

/// Bits of the smallest magnitude that is not finite.
inline constexpr uint32_t kNotFiniteBits = 0x7f800000u;
/// Blocks whose largest input is below this count as zeros: 127 / x would overflow.
inline constexpr float kLeastInput = 1e-36f;

/// One block of inputs as integers in [-127, 127].
struct BlockSums {
  float scale = 0.0f;  // before Matrix::scale
  int32_t offset = 0;  // made of the sum of the integers, as the variant's q4 tiles take it
};

/// Rows of inputs, and how they are made integers.
struct InputRows {
  const float* x = nullptr;
  int64_t rows = 0, ldx = 0, cols = 0;
  int64_t group = 0;  // inputs of a sum: kBlockInputs, of K formats those of a group, negative
  bool operator==(const InputRows&) const = default;
};

/// Room for input rows as integers, of the calling thread, valid until its next call. (Not a
/// template, and in a file that is compiled for every machine: what a vector's members compile to
/// here could be merged by the linker into code that runs on an older one.)
struct PackedScratch {
  int8_t* codes;      // [rows, inputs], whole blocks
  float* row_scales;  // [rows, blocks]
  float* scales;      // [rows, blocks]: the same times Matrix::scale
  int32_t* offsets;   // [rows, blocks]: BlockSums::offset
  int16_t* k_sums;    // [rows, groups] K formats: of the integers of a group, at most 32 * 127
  bool kept;          // these very rows are there (SharedInputs), but for `scales`
};
PackedScratch packed_scratch(const InputRows& rows, int64_t inputs);

/// Writes the rows as integers.
template <class P>
void quantize_rows(const InputRows& in, const PackedScratch& out) {
  int8_t* codes = out.codes;
  int64_t at = 0;
  for (int64_t r = 0; r < in.rows; ++r) {
    const float* row = in.x + r * in.ldx;
    for (int64_t k = 0; k < in.cols; k += kBlockInputs, codes += kBlockInputs, ++at) {
      BlockSums block;
      if (in.cols - k >= kBlockInputs) {
        block = P::quantize(row + k, codes);
      } else {
        alignas(64) float padded[kBlockInputs] = {};
        for (int64_t i = k; i < in.cols; ++i) padded[i - k] = row[i];
        block = P::quantize(padded, codes);
      }
      out.row_scales[at] = block.scale;
      out.offsets[at] = block.offset;
    }
  }
}

/// The same for K formats with groups of kGroup inputs, whose rows are whole blocks.
template <class P, int64_t kGroup>
void quantize_k_rows(const InputRows& in, const PackedScratch& out) {
  int8_t* codes = out.codes;
  int16_t* sums = out.k_sums;
  float* scales = out.row_scales;
  for (int64_t r = 0; r < in.rows; ++r)
    for (int64_t k = 0; k < in.cols; k += kSuperInputs) {
      *scales++ = P::template quantize_k<kGroup>(in.x + r * in.ldx + k, codes, sums);
      codes += kSuperInputs;
      sums += kSuperInputs / kGroup;
    }
}

/// Rows of a product with weights of a format, as integers with scales for that matrix.
template <class P, WeightFormat F>
PackedScratch packed_rows(const float* x, int64_t m, int64_t ldx, const Matrix& w) {
  const int64_t blocks = blocks_of(F, w.cols);
  InputRows in{x, m, ldx, w.cols, kBlockInputs};
  if constexpr (is_k_format(F)) in.group = -k_layout(F).group;
  const PackedScratch out = packed_scratch(in, blocks * info_of(F).block_inputs);
  if (!out.kept) {
    if constexpr (is_k_format(F)) {
      quantize_k_rows<P, k_layout(F).group>(in, out);
    } else {
      quantize_rows<P>(in, out);
    }
  }
  for (int64_t i = 0; i < m * blocks; ++i) out.scales[i] = out.row_scales[i] * w.scale;
  return out;
}

/// What a tile reads and writes.
struct PackedTile {
  const std::byte* weights;  // first block of the first panel
  int64_t panel_bytes;       // between panels
  int64_t blocks;
  const int8_t* codes;     // of the first row; rows are whole blocks apart
  const float* scales;     // of the first row; rows are `blocks` apart
  const int32_t* offsets;  // likewise
  const int16_t* k_sums;   // of the first row; rows are the groups of `blocks` apart
  float* y;                // [M, N, 16]; rows are `ldy` apart
  int64_t ldy;
  int64_t panel_y;  // floats between the outputs of two panels
};

/// Largest number of rows that one tile takes.
inline constexpr int kPackedRows = 4;

/// `rows` further down.
template <WeightFormat F>
void advance(PackedTile& tile, int64_t rows) {
  tile.codes += rows * tile.blocks * info_of(F).block_inputs;
  tile.scales += rows * tile.blocks;
  if constexpr (is_k_format(F)) {
    tile.k_sums += rows * tile.blocks * k_layout(F).groups();
  } else {
    tile.offsets += rows * tile.blocks;
  }
}

/// Rows [0, m) against N panels, as many at a time as a tile takes.
template <class P, WeightFormat F, int N>
void packed_panels(PackedTile tile, int64_t m) {
  int64_t left = m;
  const auto run = [&]<int M>() {
    for (; left >= M; left -= M) {
      P::template tile<F, M, N>(tile);
      advance<F>(tile, M);
      tile.y += M * tile.ldy;
    }
  };
  run.template operator()<kPackedRows>();
  if constexpr (F == WeightFormat::kQ8 || F == WeightFormat::kQ4) run.template operator()<3>();
  run.template operator()<2>();
  run.template operator()<1>();
}

/// M rows, one or two, against 2 * `half` panels, past which `tile` is moved; returns their
/// outputs. So few rows wait for memory, so they read two streams of it: the first half of the
/// panels beside the second. Each stream goes on where a panel ends, and what a tile fetches ahead
/// is what the next one reads.
template <class P, WeightFormat F, int M>
int64_t rows_in_halves(PackedTile& tile, int64_t half) {
  PackedTile pair = tile;
  pair.panel_bytes = half * tile.panel_bytes;
  pair.panel_y = half * kPanelOutputs;
  for (int64_t i = 0; i < half; ++i) {
    P::template tile<F, M, 2>(pair);
    pair.weights += tile.panel_bytes;
    pair.y += kPanelOutputs;
  }
  tile.weights += 2 * pair.panel_bytes;
  tile.y += 2 * pair.panel_y;
  return 2 * pair.panel_y;
}

/// y[:, n0..n1) of all rows. REQUIRES: n0 is a multiple of 16, n1 one or all outputs.
template <class P, WeightFormat F>
void packed_matmul(const float* x, int64_t m, int64_t ldx, const Matrix& w, int64_t n0, int64_t n1,
                   float* y, int64_t ldy) {
  const int64_t blocks = blocks_of(F, w.cols);
  const PackedScratch rows = packed_rows<P, F>(x, m, ldx, w);
  const int64_t panel_bytes = blocks * info_of(F).block_bytes;
  PackedTile tile{static_cast<const std::byte*>(w.data) + n0 / kPanelOutputs * panel_bytes,
                  panel_bytes,
                  blocks,
                  rows.codes,
                  rows.scales,
                  rows.offsets,
                  rows.k_sums,
                  y + n0,
                  ldy,
                  kPanelOutputs};
  int64_t left = n1 - n0;
  const int64_t half = left / kPanelOutputs / 2;
  if (m == 1) left -= rows_in_halves<P, F, 1>(tile, half);
  if (m == 2) left -= rows_in_halves<P, F, 2>(tile, half);
  for (; left >= kPanelOutputs; left -= kPanelOutputs) {
    packed_panels<P, F, 1>(tile, m);
    tile.weights += panel_bytes;
    tile.y += kPanelOutputs;
  }
  if (left == 0) return;
  alignas(64) float last[kPanelOutputs];
  float* out = tile.y;
  for (int64_t r = 0; r < m; ++r) {
    tile.y = last;
    P::template tile<F, 1, 1>(tile);
    for (int64_t n = 0; n < left; ++n) out[r * ldy + n] = last[n];
    advance<F>(tile, 1);
  }
}

}  // namespace chimera::kernels_impl
