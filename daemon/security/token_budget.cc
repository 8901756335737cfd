#include "daemon/security/token_budget.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace chimera {
namespace {

constexpr double kMinute = 60.0;

}  // namespace

Status TokenBudget::take(const Principal& client, int64_t tokens, Clock::time_point now) {
  if (!client.limits.tokens_per_minute) return {};
  const auto most = static_cast<double>(*client.limits.tokens_per_minute);
  const MutexLock lock(mutex_);
  Bucket& bucket = buckets_.try_emplace(client.name, Bucket{most, now}).first->second;
  const double seconds = std::chrono::duration<double>(now - bucket.filled).count();
  bucket.tokens = std::min(most, bucket.tokens + std::max(0.0, seconds) * most / kMinute);
  bucket.filled = now;
  if (bucket.tokens > 0.0) {
    bucket.tokens -= static_cast<double>(tokens);
    return {};
  }
  const double wait = std::floor(-bucket.tokens / most * kMinute) + 1.0;
  return {Code::kResourceExhausted,
          fmt::format("client {}: its {} tokens a minute are used up (limits.tokens_per_minute)",
                      client.name, *client.limits.tokens_per_minute),
          fmt::format("try again in {} s", wait)};
}

void TokenBudget::give_back(const Principal& client, int64_t tokens) {
  if (!client.limits.tokens_per_minute) return;
  const MutexLock lock(mutex_);
  const auto bucket = buckets_.find(client.name);
  if (bucket != buckets_.end()) bucket->second.tokens += static_cast<double>(tokens);
}

}  // namespace chimera
