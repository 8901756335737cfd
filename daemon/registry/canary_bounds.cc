#include "daemon/registry/canary_bounds.h"

#include <fmt/format.h>

#include "daemon/registry/canary.h"

namespace chimera {

std::optional<std::string> broken_bound(const CanaryBounds& bounds, const CanarySide& canary) {
  if (canary.requests < static_cast<uint64_t>(bounds.after)) return std::nullopt;
  const auto beyond = [](const char* what, std::optional<double> found,
                         std::optional<double> bound) -> std::optional<std::string> {
    if (!found || !bound || *found <= *bound) return std::nullopt;
    return fmt::format("{}: found {:.4g} (expected at most {:.4g})", what, *found, *bound);
  };
  auto broken = beyond("error rate", error_rate(canary), bounds.error_rate);
  if (!broken) broken = beyond("ms per token", ms_per_token(canary), bounds.ms_per_token);
  if (!broken) broken = beyond("bits per byte", bits_per_byte(canary), bounds.bits_per_byte);
  return broken;
}

}  // namespace chimera
