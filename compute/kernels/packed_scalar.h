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
    BlockSums block;
    block.scale = integers(x, kBlockInputs, codes);
    return block;
  }
  /// Returns the scale.
  template <int64_t kGroup>
  static float quantize_k(const float* x, int8_t* codes, int16_t* sums) {
    const float scale = integers(x, kSuperInputs, codes);
    for (int64_t g = 0; g < kSuperInputs / kGroup; ++g) {
      int sum = 0;
      for (int64_t i = 0; i < kGroup; ++i) sum += codes[g * kGroup + i];
      sums[g] = static_cast<int16_t>(sum);
    }
    return scale;
  }

  template <WeightFormat F, int M, int N>
  static void tile(const PackedTile& t) {
    for (int64_t m = 0; m < M; ++m)
      for (int64_t n = 0; n < N * kPanelOutputs; ++n) {
        float& y = t.y[m * t.ldy + n / kPanelOutputs * t.panel_y + n % kPanelOutputs];
        if constexpr (is_k_format(F)) {
          y = k_output<F>(t, m, n);
        } else {
          y = output<F>(t, m, n);
        }
      }
  }

 private:
  /// n inputs in [-127, 127]; returns their scale.
  static float integers(const float* x, int64_t n, int8_t* codes) {
    uint32_t most = 0;  // magnitudes compare like their bits; NaN above all
    for (int64_t i = 0; i < n; ++i)
      most = std::max(most, std::bit_cast<uint32_t>(x[i]) & 0x7fffffffu);
    const float largest = std::bit_cast<float>(most);
    if (most >= kNotFiniteBits || largest < kLeastInput) {
      std::fill_n(codes, n, int8_t{0});
      return most >= kNotFiniteBits ? std::numeric_limits<float>::quiet_NaN() : 0.0f;
    }
    const float factor = 127.0f / largest;
    for (int64_t i = 0; i < n; ++i) codes[i] = static_cast<int8_t>(std::nearbyint(x[i] * factor));
    return largest / 127.0f;
  }

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
      const float scale = half_at(block + 2 * lane) * t.scales[m * t.blocks + b];
      y = std::fma(static_cast<float>(sum), scale, y);
    }
    return y;
  }

  template <WeightFormat F>
  static float k_output(const PackedTile& t, int64_t m, int64_t n) {
    constexpr KLayout kLayout = k_layout(F);
    const int64_t lane = n % kPanelOutputs;
    const std::byte* block = t.weights + n / kPanelOutputs * t.panel_bytes;
    float y = 0.0f;
    for (int64_t b = 0; b < t.blocks; ++b, block += kLayout.bytes()) {
      const int8_t* x = t.codes + (m * t.blocks + b) * kSuperInputs;
      const int16_t* sums = t.k_sums + (m * t.blocks + b) * kLayout.groups();
      int32_t product = 0, correction = 0;
      for (int64_t g = 0; g < kLayout.groups(); ++g) {
        const int64_t place = k_scale_place(g, lane);
        const int scale = signed_at(block + kLayout.scales_at() + place);
        int32_t sum = 0;
        for (int64_t i = g * kLayout.group; i < (g + 1) * kLayout.group; ++i)
          sum += x[i] * k_code<F>(block + kLayout.codes_at(), lane, i);
        product += scale * sum;
        correction +=
            (kLayout.minima ? signed_at(block + kLayout.minima_at() + place) : scale) * sums[g];
      }
      const float scale_x = t.scales[m * t.blocks + b];
      const float scale = half_at(block + 2 * lane) * scale_x;
      if constexpr (kLayout.minima) {
        const float minimum = half_at(block + kPanelScaleBytes + 2 * lane) * scale_x;
        y = std::fma(static_cast<float>(product), scale, y);
        y = std::fma(-static_cast<float>(correction), minimum, y);
      } else {
        y = std::fma(static_cast<float>(product - kLayout.offset * correction), scale, y);
      }
    }
    return y;
  }

  /// Of input `i` of a block.
  template <WeightFormat F>
  static int k_code(const std::byte* codes, int64_t n, int64_t i) {
    constexpr KLayout kLayout = k_layout(F);
    codes += i / kBlockInputs * kLayout.code_bytes() + n * 4 + i % 4;
    const auto quad = static_cast<int>(i % kBlockInputs / 4);
    const KPlace low = k_low_place(kLayout, quad);
    const int bits =
        std::to_integer<int>(codes[low.byte]) >> low.shift & ((1 << kLayout.low_bits) - 1);
    if constexpr (kLayout.high_bits == 0) {
      return bits;
    } else {
      const KPlace high = k_high_place(kLayout, quad);
      const int top =
          std::to_integer<int>(codes[high.byte]) >> high.shift & ((1 << kLayout.high_bits) - 1);
      return bits | top << kLayout.low_bits;
    }
  }

  static int signed_at(const std::byte* at) { return static_cast<int8_t>(*at); }
  static float half_at(const std::byte* at) {
    uint16_t half;
    std::memcpy(&half, at, sizeof(half));
    return f16_to_f32(half);
  }

  template <WeightFormat F>
  static int code(const std::byte* integers, int64_t n, int64_t k) {
    if constexpr (F == WeightFormat::kQ8) {
      return static_cast<int8_t>(integers[k / 4 * 64 + n * 4 + k % 4]);
    } else {
      const auto byte = std::to_integer<unsigned>(integers[k / 8 * 64 + n * 4 + k % 4]);
      const unsigned bits = k / 4 % 2 == 1 ? byte >> 4 : byte & 15;
      if constexpr (is_table_format(F)) return integers_of(F)[bits];
      return static_cast<int>(bits) - 8;
    }
  }
};

}  // namespace
}  // namespace chimera::kernels_impl
