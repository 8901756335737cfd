// A module that a part of the new sequences tries, as operators see it.
//
// The current composition stays what it is, also for a restart, which ends the canary; the epochs
// that it used are used up. Until it is promoted or aborted, changes of the composition are
// refused. A revocation is not, and ends it.
//
// Thread safety: values and free functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/enum_names.h"
#include "daemon/config/config.h"
#include "daemon/engine/canary.h"

namespace chimera {

enum class CanaryOutcome : uint8_t { kRunning, kPromoted, kAborted };
inline constexpr auto kCanaryOutcomeNames =
    enum_names<CanaryOutcome>("running", "promoted", "aborted");

struct CanaryStatus {
  std::string module, version, digest;
  double fraction = 0.0;    // of new sequences
  uint64_t epoch = 0;       // that they begin on
  std::string composition;  // digest
  std::string since;        // RFC 3339, UTC
  CanaryOutcome outcome = CanaryOutcome::kRunning;
  std::string until, reason;  // when it has ended
  CanaryCounts counts;
  CanaryBounds bounds;
};

/// Nothing where nothing was seen.
inline std::optional<double> error_rate(const CanarySide& side) {
  if (side.requests == 0) return std::nullopt;
  return static_cast<double>(side.failed) / static_cast<double>(side.requests);
}
inline std::optional<double> ms_per_token(const CanarySide& side) {
  if (side.tokens == 0) return std::nullopt;
  return side.decode_ms / static_cast<double>(side.tokens);
}
inline std::optional<double> bits_per_byte(const CanarySide& side) {
  constexpr double kLn2 = 0.693147180559945309417;
  if (side.scored_bytes == 0) return std::nullopt;
  return side.nats / kLn2 / static_cast<double>(side.scored_bytes);
}

}  // namespace chimera
