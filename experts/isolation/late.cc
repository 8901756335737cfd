// Passes that go on without the call of a library that takes longer than they wait.
#include <fmt/format.h>

#include <algorithm>
#include <thread>

#include "experts/isolation/backend.h"

namespace chimera {
namespace {

using std::chrono::milliseconds;

// Between one pass that did without it and the next that waits for it again: as its host would be
// restarted (keeper.cc), as all others are held up once per rest.
constexpr milliseconds kFirstRest{100};
constexpr milliseconds kLongestRest{30'000};
// Rests begin afresh when it was waited for this long.
constexpr std::chrono::seconds kUnhurried{60};
// How often who waits for its turn looks.
constexpr std::chrono::microseconds kLook{200};

constexpr const char* kHint =
    "Exclude the module with modules.exclude, or have the operator raise libraries.max_step_ms.";

}  // namespace

std::optional<IsolatedBackend::Clock::time_point> IsolatedBackend::patience_of(
    uint64_t pass) const {
  const milliseconds most = runtime_->options().ceilings.pass;
  if (pass == 0 || most == milliseconds::max()) return std::nullopt;
  std::chrono::nanoseconds left = most;
  const MutexLock guard(mutex_);
  for (const Waited& waited : waited_) {
    if (waited.pass == pass) left -= waited.time;
  }
  return Clock::now() + std::max(left, std::chrono::nanoseconds(0));
}

void IsolatedBackend::count_wait(uint64_t pass, Clock::time_point begin) {
  if (pass == 0) return;
  const auto time = Clock::now() - begin;
  const MutexLock guard(mutex_);
  for (Waited& waited : waited_) {
    if (waited.pass != pass) continue;
    waited.time += time;
    return;
  }
  waited_[next_waited_] = {pass, time};
  next_waited_ = (next_waited_ + 1) % waited_.size();
}

MovableMutexLock IsolatedBackend::take_turn(uint64_t pass) {
  const auto patience = patience_of(pass);
  if (!patience) return MovableMutexLock(call_mutex_);
  const Clock::time_point begin = Clock::now();
  MovableMutexLock turn(call_mutex_, std::try_to_lock);
  while (!turn.owns_lock() && Clock::now() < *patience) {
    std::this_thread::sleep_for(kLook);
    (void)turn.try_lock();
  }
  count_wait(pass, begin);
  return turn;
}

Status IsolatedBackend::spent_status() const {
  return {Code::kUnavailable,
          fmt::format("the step has waited for the plugin as long as it may ({} ms, "
                      "libraries.max_step_ms of the deployment)",
                      runtime_->options().ceilings.pass.count()),
          kHint};
}

void IsolatedBackend::begin_rest() {
  const Clock::time_point now = Clock::now();
  const bool afresh = rest_ == rest_.zero() || now - rests_until_ >= kUnhurried;
  rest_ = afresh ? kFirstRest : std::min(rest_ * 2, kLongestRest);
  rests_until_ = now + rest_;
  const milliseconds most = runtime_->options().ceilings.pass;
  log(LibraryRuntime::Severity::kWarning,
      fmt::format("a step went on without it after {} ms; not called for {} ms", most.count(),
                  rest_.count()));
  const MutexLock guard(mutex_);
  last_error_ = fmt::format("took longer than a step waits ({} ms)", most.count());
}

Status IsolatedBackend::leave(HostLife& host, const Limits& limits) {
  if (!left_) {
    left_ = true;
    left_limit_ = limits.own + limit_ * (host.port->in_flight() - 1);
    begin_rest();
  }
  // Nobody waits for it now: it may give up, but has its own time.
  host.port->cancel(true);
  return {Code::kUnavailable,
          fmt::format("the plugin took longer than a step waits (expected at most {} ms of it, "
                      "libraries.max_step_ms of the deployment)",
                      runtime_->options().ceilings.pass.count()),
          kHint};
}

Status IsolatedBackend::catch_up(HostLife& host) {
  if (left_) {
    while (host.port->in_flight() > 0) {
      const Clock::time_point now = Clock::now();
      const Status part = take_part(host, {left_limit_, std::nullopt, now}, 0, nullptr);
      if (part.code() == Code::kUnavailable) return part;
    }
    left_ = false;
    host.port->cancel(false);
  }
  if (Clock::now() >= rests_until_) return {};
  return {Code::kUnavailable, "the plugin rests, as a step had to go on without it", kHint};
}

}  // namespace chimera
