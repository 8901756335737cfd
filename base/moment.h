// Moments as people write them in clients files and signatures, and as records and statements do.
//
// Thread safety: pure functions.
#pragma once

#include <chrono>
#include <optional>
#include <string>

namespace chimera {

/// "2027-01-31" (its end) or "2027-01-31T18:00:00Z", UTC.
std::optional<std::chrono::system_clock::time_point> parse_moment(const std::string& text);

/// "2026-11-27T10:00:00.123Z"
std::string format_moment(std::chrono::system_clock::time_point time);

}  // namespace chimera
