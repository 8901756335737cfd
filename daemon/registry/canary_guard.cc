#include "daemon/registry/canary_guard.h"

#include <fmt/format.h>
#include <pthread.h>

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

void CanaryGuard::stop() {
  std::thread thread;
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
    thread.swap(thread_);
  }
  wake_.notify_all();
  if (thread.joinable()) thread.join();
}

void CanaryGuard::begin() {
  {
    const MutexLock lock(mutex_);
    wanted_ = true;
    if (!thread_.joinable() && !stopping_) thread_ = std::thread([this] { run(); });
  }
  wake_.notify_all();
}

void CanaryGuard::run() {
  pthread_setname_np(pthread_self(), "chimera-canary");
  while (true) {
    {
      const MutexLock lock(mutex_);
      wake_.wait(mutex_, [this]() REQUIRES(mutex_) { return wanted_ || stopping_; });
      wake_.wait_for(mutex_, interval_, [this]() REQUIRES(mutex_) { return stopping_; });
      if (stopping_) return;
      wanted_ = false;
    }
    if (!look_()) continue;
    const MutexLock lock(mutex_);
    wanted_ = true;
  }
}

}  // namespace chimera
