#include "base/threads/background.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "base/threads/thread_pool.h"

namespace chimera {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::microseconds;
using std::chrono::nanoseconds;

// Beside two busy compute threads on two CPUs (`chimera-bench swap`, 8 changes a second, demo
// model) the tail of the streams was 1.6 times the quiet one without bursts, 1.3 with bursts of
// 250 us and no rest, 1.2 with rests of 1 ms and 1.1 with 2 ms (at nice 10; at normal priority,
// with 2 ms, 1.05 to 1.2). A ninth of a CPU is left for the load.
constexpr microseconds kBurst{250};
constexpr microseconds kRest{2000};
// A yield that nobody takes up returns within a microsecond.
constexpr microseconds kTakenUp{20};

struct State {
  bool background = false;
  Foreground* foreground = nullptr;
  Clock::time_point burst_began;
};
thread_local State this_thread;

}  // namespace

// Every second CPU may have a burst at a time: of two, the streams have one and most of the other.
Foreground::Foreground() : apart_(nanoseconds(kBurst + kRest) / std::max(1, auto_threads() / 2)) {}

Foreground::Clock::time_point Foreground::next_burst(Clock::time_point now) {
  const int64_t earliest = nanoseconds((now + kRest).time_since_epoch()).count();
  int64_t free = next_ns_.load(std::memory_order_relaxed);
  int64_t mine = 0;
  do {
    mine = std::max(free, earliest);
  } while (!next_ns_.compare_exchange_weak(free, mine + apart_.count(), std::memory_order_relaxed));
  return Clock::time_point(nanoseconds(mine));
}

BackgroundScope::BackgroundScope(bool background, Foreground* foreground)
    : before_(this_thread.background), foreground_before_(this_thread.foreground) {
  this_thread.background = background;
  this_thread.foreground = foreground;
  if (background && !before_) this_thread.burst_began = Clock::now();
}
BackgroundScope::~BackgroundScope() {
  this_thread.background = before_;
  this_thread.foreground = foreground_before_;
}

BackgroundHelper::BackgroundHelper()
    : background_(this_thread.background), foreground_(this_thread.foreground) {}

bool in_background() { return this_thread.background; }

bool foreground_busy() {
  return this_thread.background &&
         (this_thread.foreground == nullptr || this_thread.foreground->busy());
}

void give_way() {
  if (!this_thread.background) return;
  const Clock::time_point now = Clock::now();
  if (now - this_thread.burst_began < kBurst) return;
  Foreground* const foreground = this_thread.foreground;
  if (foreground != nullptr && !foreground->busy()) {
    this_thread.burst_began = now;
    return;
  }
  std::this_thread::yield();
  if (const auto after = Clock::now(); after - now > kTakenUp) {
    std::this_thread::sleep_until(foreground != nullptr ? foreground->next_burst(after)
                                                        : after + kRest);
  }
  this_thread.burst_began = Clock::now();
}

}  // namespace chimera
