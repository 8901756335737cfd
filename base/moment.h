// Moments as people write them in clients files and signatures.
//
// Thread safety: pure function.
#pragma once

#include <chrono>
#include <optional>
#include <string>

namespace chimera {

/// "2027-01-31" (its end) or "2027-01-31T18:00:00Z", UTC.
std::optional<std::chrono::system_clock::time_point> parse_moment(const std::string& text);

}  // namespace chimera
