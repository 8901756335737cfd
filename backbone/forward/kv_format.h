// How the key/value cache keeps its numbers: as they were computed, or rounded to two bytes, which
// halves what a sequence takes. What attention reads is widened again, so a sequence's bits depend
// on the format and on nothing else: not on its batch, its chunks, or whose prefix it found.
//
// Thread safety: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/enum_names.h"

namespace chimera {

enum class KvFormat : uint8_t { kF32, kF16, kBF16 };
inline constexpr auto kKvFormatNames = enum_names<KvFormat>("f32", "f16", "bf16");

/// Bytes of one number.
constexpr int64_t kv_number_bytes(KvFormat format) { return format == KvFormat::kF32 ? 4 : 2; }

/// Rounds to nearest, ties to even. Beyond the range of f16: its largest number, since a cache of
/// infinities would make of one large value an answer of none. Infinite and NaN stay what they are.
/// `to`: n numbers, at a multiple of their size.
void narrow_numbers(KvFormat format, const float* from, int64_t n, std::byte* to);
/// Exact.
void widen_numbers(KvFormat format, const std::byte* from, int64_t n, float* to);

/// What a pass widens at a time of the caches of several sequences, in floats: 4 MiB, which the
/// attention that follows finds in a cache of the processor. One long sequence takes more.
inline constexpr int64_t kWidenedFloats = int64_t{1} << 20;

}  // namespace chimera
