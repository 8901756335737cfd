#include "backbone/forward/kv_format.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "compute/tensor/tensor.h"

namespace chimera {
namespace {

constexpr float kLargestF16 = 65504.0f;

uint16_t saturated_f16(float value) {
  return f32_to_f16(std::isinf(value) ? value : std::clamp(value, -kLargestF16, kLargestF16));
}

/// f16_to_f32 without branches, so that the compiler makes vectors of the loop over it.
float f16_value(uint16_t half) {
  constexpr uint32_t kBias = 112u << 23;  // of f32's exponents over those of f16
  constexpr uint32_t kFirstNormal = 1u << 23, kInfinity = 31u << 23;
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t magnitude = static_cast<uint32_t>(half & 0x7fffu) << 13;
  const uint32_t normal = magnitude + kBias + (magnitude >= kInfinity ? kBias : 0u);
  // With the smallest normal exponent put before it, a subnormal is too large by just that: 2^-14.
  const float subnormal = std::bit_cast<float>(magnitude + kBias + kFirstNormal) - 0x1p-14f;
  const uint32_t bits = magnitude < kFirstNormal ? std::bit_cast<uint32_t>(subnormal) : normal;
  return std::bit_cast<float>(bits | sign);
}

template <class Round>
void narrow_each(const float* from, int64_t n, std::byte* to, const Round& round) {
  auto* const out = reinterpret_cast<uint16_t*>(to);
  for (int64_t i = 0; i < n; ++i) out[i] = round(from[i]);
}

template <class Widen>
void widen_each(const std::byte* from, int64_t n, float* __restrict to, const Widen& widen) {
  const auto* __restrict in = reinterpret_cast<const uint16_t*>(from);
  // A count that is known lets the compiler make vectors without checks before and a rest behind.
  constexpr int64_t kAtOnce = 16;
  for (; n >= kAtOnce; n -= kAtOnce, in += kAtOnce, to += kAtOnce)
    for (int64_t i = 0; i < kAtOnce; ++i) to[i] = widen(in[i]);
  for (int64_t i = 0; i < n; ++i) to[i] = widen(in[i]);
}

size_t float_bytes(int64_t n) { return static_cast<size_t>(n) * sizeof(float); }

}  // namespace

void narrow_numbers(KvFormat format, const float* from, int64_t n, std::byte* to) {
  switch (format) {
    case KvFormat::kF32:
      std::memcpy(to, from, float_bytes(n));
      return;
    case KvFormat::kF16:
      return narrow_each(from, n, to, saturated_f16);
    case KvFormat::kBF16:
      return narrow_each(from, n, to, f32_to_bf16);
  }
}

void widen_numbers(KvFormat format, const std::byte* from, int64_t n, float* to) {
  switch (format) {
    case KvFormat::kF32:
      std::memcpy(to, from, float_bytes(n));
      return;
    case KvFormat::kF16:
      return widen_each(from, n, to, [](uint16_t half) { return f16_value(half); });
    case KvFormat::kBF16:
      return widen_each(from, n, to, [](uint16_t half) { return bf16_to_f32(half); });
  }
}

}  // namespace chimera
