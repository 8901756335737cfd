#include "base/threads/background.h"

#include <chrono>
#include <thread>

namespace chimera {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::microseconds;

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
  Clock::time_point burst_began;
};
thread_local State this_thread;

}  // namespace

BackgroundScope::BackgroundScope(bool background) : before_(this_thread.background) {
  this_thread.background = background;
  if (background && !before_) this_thread.burst_began = Clock::now();
}
BackgroundScope::~BackgroundScope() { this_thread.background = before_; }

bool in_background() { return this_thread.background; }

void give_way() {
  if (!this_thread.background) return;
  const Clock::time_point now = Clock::now();
  if (now - this_thread.burst_began < kBurst) return;
  std::this_thread::yield();
  if (Clock::now() - now > kTakenUp) std::this_thread::sleep_for(kRest);
  this_thread.burst_began = Clock::now();
}

}  // namespace chimera
