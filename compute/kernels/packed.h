// Products with packed weights (compute/tensor/weight_format.h). Private to this folder.
//
// Input rows are brought into integers of 8 bits, in the same blocks of 32 with one scale each, so
// a block is an exact sum of integer products and two scales. The order, the same in every variant:
//
//   s[b] = sum of q_x * q_w over the 32 inputs of block b           exact, int32
//   y    = fma(float(s[b]), scale_w[b] * scale_x[b], y)             for b = 0, 1, …
//
// with scale_x = Matrix::scale * largest |x| of the block / 127. Equal bits over instruction sets,
// tilings and batch sizes follow from that; a row depends on itself alone.
//
// What a variant P provides: quantize() for one block of one row, and tile<F, M, N>(): M rows
// against N panels.
//
// Thread safety: pure functions; scratch memory is per thread.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>

#include "compute/kernels/kernels.h"

namespace chimera::kernels_impl {

/// Bits of the smallest magnitude that is not finite.
inline constexpr uint32_t kNotFiniteBits = 0x7f800000u;
/// Blocks whose largest input is below this count as zeros: 127 / x would overflow.
inline constexpr float kLeastInput = 1e-36f;

/// One block of inputs as integers in [-127, 127].
struct BlockSums {
  float scale = 0.0f;  // before Matrix::scale
  int32_t sum = 0;     // of the integers
};

/// Room for input rows as integers, of the calling thread, valid until its next call. (Not a
/// template, and in a file that is compiled for every machine: what a vector's members compile to
/// here could be merged by the linker into code that runs on an older one.)
struct PackedScratch {
  int8_t* codes;  // [rows, blocks * 32]
  float* scales;  // [rows, blocks]
  int32_t* sums;  // [rows, blocks]
};
PackedScratch packed_scratch(int64_t rows, int64_t blocks);

/// Writes `rows` rows of `cols` inputs as integers; `unit` is Matrix::scale.
template <class P>
void quantize_rows(const float* x, int64_t rows, int64_t ldx, int64_t cols, float unit,
                   const PackedScratch& out) {
  int8_t* codes = out.codes;
  int64_t at = 0;
  for (int64_t r = 0; r < rows; ++r) {
    const float* row = x + r * ldx;
    for (int64_t k = 0; k < cols; k += kBlockInputs, codes += kBlockInputs, ++at) {
      BlockSums block;
      if (cols - k >= kBlockInputs) {
        block = P::quantize(row + k, codes);
      } else {
        alignas(64) float padded[kBlockInputs] = {};
        for (int64_t i = k; i < cols; ++i) padded[i - k] = row[i];
        block = P::quantize(padded, codes);
      }
      out.scales[at] = block.scale * unit;
      out.sums[at] = block.sum;
    }
  }
}

/// What a tile reads and writes.
struct PackedTile {
  const std::byte* weights;  // first block of the first panel
  int64_t panel_bytes;       // between panels
  int64_t blocks;
  const int8_t* codes;  // of the first row; rows are blocks * 32 apart
  const float* scales;  // of the first row; rows are `blocks` apart
  const int32_t* sums;  // likewise
  float* y;             // [M, N * 16]; rows are `ldy` apart
  int64_t ldy;
};

/// Largest number of rows that one tile takes.
inline constexpr int kPackedRows = 4;

/// Rows [0, m) against N panels, as many at a time as a tile takes.
template <class P, WeightFormat F, int N>
void packed_panels(PackedTile tile, int64_t m) {
  const auto advance = [&tile](int64_t rows) {
    tile.codes += rows * tile.blocks * kBlockInputs;
    tile.scales += rows * tile.blocks;
    tile.sums += rows * tile.blocks;
    tile.y += rows * tile.ldy;
  };
  int64_t left = m;
  for (; left >= kPackedRows; left -= kPackedRows, advance(kPackedRows))
    P::template tile<F, kPackedRows, N>(tile);
  if (left == 3) return P::template tile<F, 3, N>(tile);
  if (left == 2) return P::template tile<F, 2, N>(tile);
  if (left == 1) return P::template tile<F, 1, N>(tile);
}

/// y[:, n0..n1) of all rows. REQUIRES: n0 is a multiple of 16, n1 one or all outputs.
template <class P, WeightFormat F>
void packed_matmul(const float* x, int64_t m, int64_t ldx, const Matrix& w, int64_t n0, int64_t n1,
                   float* y, int64_t ldy) {
  const int64_t blocks = blocks_of(w.cols);
  const PackedScratch rows = packed_scratch(m, blocks);
  quantize_rows<P>(x, m, ldx, w.cols, w.scale, rows);
  const int64_t panel_bytes = blocks * info_of(F).block_bytes;
  PackedTile tile{static_cast<const std::byte*>(w.data) + n0 / kPanelOutputs * panel_bytes,
                  panel_bytes,
                  blocks,
                  rows.codes,
                  rows.scales,
                  rows.sums,
                  y + n0,
                  ldy};
  int64_t left = n1 - n0;
  // A single row waits for memory: two panels are two streams of it.
  for (; m == 1 && left >= 2 * kPanelOutputs; left -= 2 * kPanelOutputs) {
    P::template tile<F, 1, 2>(tile);
    tile.weights += 2 * panel_bytes;
    tile.y += 2 * kPanelOutputs;
  }
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
    tile.codes += tile.blocks * kBlockInputs;
    tile.scales += tile.blocks;
    tile.sums += tile.blocks;
  }
}

}  // namespace chimera::kernels_impl
