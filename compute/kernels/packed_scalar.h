// Packed products one integer at a time: the reference of the other variants. Private to this
// folder.
//
// Thread safety: pure functions.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>

#include "compute/kernels/packed.h"

namespace chimera::kernels_impl {
namespace {  // one copy for each file that includes it; see impl.h

struct PackedScalar {
  static BlockSums quantize(const float* x, int8_t* codes) {
    uint32_t most = 0;  // magnitudes compare like their bits; NaN above all
    for (int64_t i = 0; i < kBlockInputs; ++i)
      most = std::max(most, std::bit_cast<uint32_t>(x[i]) & 0x7fffffffu);
    const float largest = std::bit_cast<float>(most);
    BlockSums block;
    if (most >= kNotFiniteBits) {
      block.scale = std::numeric_limits<float>::quiet_NaN();
    } else if (largest >= kLeastInput) {
      block.scale = largest / 127.0f;
    }
    const bool zero = most >= kNotFiniteBits || largest < kLeastInput;
    const float factor = zero ? 0.0f : 127.0f / largest;
    for (int64_t i = 0; i < kBlockInputs; ++i) {
      const float q = zero ? 0.0f : std::nearbyint(x[i] * factor);
      codes[i] = static_cast<int8_t>(q);
      block.sum += codes[i];
    }
    return block;
  }

  template <WeightFormat F, int M, int N>
  static void tile(const PackedTile& t) {
    for (int64_t m = 0; m < M; ++m)
      for (int64_t n = 0; n < N * kPanelOutputs; ++n) t.y[m * t.ldy + n] = output<F>(t, m, n);
  }

 private:
  template <WeightFormat F>
  static float output(const PackedTile& t, int64_t m, int64_t n) {
    const int64_t lane = n % kPanelOutputs;
    const std::byte* block = t.weights + n / kPanelOutputs * t.panel_bytes;
    float y = 0.0f;
    for (int64_t b = 0; b < t.blocks; ++b, block += info_of(F).block_bytes) {
      const int8_t* x = t.codes + (m * t.blocks + b) * kBlockInputs;
      const std::byte* integers = block + kPanelScaleBytes;
      int32_t sum = 0;
      for (int64_t k = 0; k < kBlockInputs; ++k) sum += x[k] * code<F>(integers, lane, k);
      uint16_t half;
      std::memcpy(&half, block + 2 * lane, sizeof(half));
      const float scale = f16_to_f32(half) * t.scales[m * t.blocks + b];
      y = std::fma(static_cast<float>(sum), scale, y);
    }
    return y;
  }

  template <WeightFormat F>
  static int code(const std::byte* integers, int64_t n, int64_t k) {
    if constexpr (F == WeightFormat::kQ8) {
      return static_cast<int8_t>(integers[k / 4 * 64 + n * 4 + k % 4]);
    } else {
      const int byte = std::to_integer<int>(integers[k / 8 * 64 + n * 4 + k % 4]);
      return (k / 4 % 2 == 1 ? byte >> 4 : byte & 15) - 8;
    }
  }
};

}  // namespace
}  // namespace chimera::kernels_impl
