// The declared range of every field on the wire; clients/PROTOCOL.md prints the same numbers.
//
// Thread safety: constants.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string_view>

#include "base/fields/ranges.h"
#include "base/limits.h"

namespace chimera::wire {

namespace range {

inline constexpr size_t kTextBytes = size_t{4} << 20;  // bounded by the frame anyway
inline constexpr int64_t kDayMs = 86'400'000;

inline constexpr TextRange id{"id", 1, 128};
inline constexpr TextRange traceparent{"traceparent", 55, 55};
inline constexpr const char* kTrace =
    "^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$";
inline constexpr TextRange target{"target", 1, 128};
inline constexpr TextRange prompt{"prompt", 0, kTextBytes};
inline constexpr TextRange text{"text", 0, kTextBytes};
inline constexpr TextRange content{"content", 0, kTextBytes};
inline constexpr TextRange role{"role", 1, 64};
inline constexpr TextRange stop{"stop", 1, 256};          // each of at most kMaxStops strings
inline constexpr TextRange regex{"regex", 0, 16 * 1024};  // of a constraint
inline constexpr TextRange name{"name", 1, 128};
inline constexpr TextRange precision{"precision", 1, 16};
inline constexpr TextRange path{"path", 1, 4096};            // PATH_MAX
inline constexpr TextRange directory{"directory", 1, 4096};  // likewise

inline constexpr IntRange token{"tokens", 0, std::numeric_limits<int32_t>::max()};
inline constexpr IntRange max_tokens{"max_tokens", 1, 1'000'000};
inline constexpr IntRange top_k{"top_k", 0, 1'000'000};
inline constexpr IntRange seed{"seed", 0, std::numeric_limits<int64_t>::max()};
inline constexpr IntRange deadline_ms{"deadline_ms", 1, kDayMs};
inline constexpr IntRange timeout_ms{"timeout_ms", 0, kDayMs};
inline constexpr IntRange epoch{"epoch", 1, std::numeric_limits<int64_t>::max()};
inline constexpr IntRange layer{"layer", 0, 65'535};
inline constexpr IntRange since{"since", 0, int64_t{1} << 40};
inline constexpr IntRange limit{"limit", 1, 10'000};
inline constexpr IntRange usage_limit{"limit", 1, 100'000};  // some 20 MB

inline constexpr RealRange temperature{"temperature", 0.0, 100.0};
inline constexpr RealRange top_p{"top_p", 0.0, 1.0, /*min_open=*/true};
inline constexpr RealRange min_p{"min_p", 0.0, 1.0};
inline constexpr RealRange repetition_penalty{"repetition_penalty", 0.0, 10.0, /*min_open=*/true};
// The ranges of these three are those of OpenAI's API.
inline constexpr RealRange frequency_penalty{"frequency_penalty", -2.0, 2.0};
inline constexpr RealRange presence_penalty{"presence_penalty", -2.0, 2.0};
inline constexpr RealRange logit_bias{"logit_bias", -100.0, 100.0};
inline constexpr IntRange top_logprobs{"top_logprobs", 0, 20};
inline constexpr RealRange bias{"bias", -kMaxBias, kMaxBias};
inline constexpr RealRange weight{"weight", 0.0, kMaxBundleWeight, /*min_open=*/true};
inline constexpr RealRange canary{"canary", 0.0, 1.0, /*min_open=*/true};
inline constexpr RealRange lambda{"lambda", -kMaxLambda, kMaxLambda};
inline constexpr RealRange value{"value", -kMaxBias, kMaxBias};  // of the call `bias`

inline constexpr size_t kMaxStops = 16;
inline constexpr size_t kMaxLogitBiases = 1024;
inline constexpr size_t kMaxModuleNames = kMaxModules;
inline constexpr size_t kMaxMessages = 1024;  // also of tools, documents and tool calls

}  // namespace range
}  // namespace chimera::wire
