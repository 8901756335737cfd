#include "base/moment.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <ctime>

namespace chimera {

std::optional<std::chrono::system_clock::time_point> parse_moment(const std::string& text) {
  std::tm tm{};
  const char* end = ::strptime(text.c_str(), "%Y-%m-%d", &tm);
  const bool day = end != nullptr && *end == '\0';
  if (!day) end = ::strptime(text.c_str(), "%Y-%m-%dT%H:%M:%SZ", &tm);
  if (end == nullptr || *end != '\0') return std::nullopt;
  const std::tm read = tm;
  const std::time_t seconds = ::timegm(&tm);  // puts "2027-02-30" into March
  if (tm.tm_mday != read.tm_mday || tm.tm_mon != read.tm_mon) return std::nullopt;
  // The clock counts nanoseconds, which end in 2262.
  const auto at = std::chrono::seconds(seconds) + std::chrono::hours(day ? 24 : 0);
  using Clock = std::chrono::system_clock;
  constexpr auto kMost = std::chrono::floor<std::chrono::seconds>(Clock::duration::max());
  return at > kMost ? Clock::time_point::max() : Clock::time_point(at);
}

std::string format_moment(std::chrono::system_clock::time_point time) {
  const auto since = std::chrono::floor<std::chrono::milliseconds>(time.time_since_epoch());
  const auto seconds = std::chrono::floor<std::chrono::seconds>(since);
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:03}Z",
                     fmt::gmtime(static_cast<std::time_t>(seconds.count())),
                     (since - seconds).count());
}

}  // namespace chimera
