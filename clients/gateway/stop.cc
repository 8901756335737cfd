#include "clients/gateway/stop.h"

#include <pthread.h>
#include <signal.h>

#include <cerrno>

namespace chimera::gateway {
namespace {

constexpr int kWake = SIGUSR1;  // to the thread itself

sigset_t watched() {
  sigset_t set;
  sigemptyset(&set);
  for (const int number : {SIGTERM, SIGINT, SIGQUIT, SIGHUP, kWake}) sigaddset(&set, number);
  return set;
}

void run(const StopSignals::Actions& actions, std::chrono::seconds drain_limit,
         const std::atomic<bool>& done) {
  const sigset_t set = watched();
  bool draining = false;
  const timespec limit{.tv_sec = drain_limit.count(), .tv_nsec = 0};
  while (true) {
    const int number = sigtimedwait(&set, nullptr, draining ? &limit : nullptr);
    if (done) return;
    if (number < 0 && errno == EINTR) continue;
    if (number == SIGHUP) {
      actions.reload();
    } else if (draining) {
      actions.stop();
    } else {
      actions.drain();
      draining = true;
    }
  }
}

}  // namespace

StopSignals::StopSignals() {
  const sigset_t set = watched();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  signal(SIGPIPE, SIG_IGN);  // writing to who is gone fails with a status of its own
}

StopSignals::~StopSignals() { stop(); }

void StopSignals::stop() {
  if (!thread_.joinable()) return;
  done_ = true;
  pthread_kill(thread_.native_handle(), kWake);
  thread_.join();
}

void StopSignals::start(Actions actions, std::chrono::seconds drain_limit) {
  thread_ = std::thread(
      [this, actions = std::move(actions), drain_limit] { run(actions, drain_limit, done_); });
}

}  // namespace chimera::gateway
