#include "daemon/signals.h"

#include <signal.h>
#include <unistd.h>

#include <cerrno>

namespace chimera {
namespace {

sigset_t stop_set() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  return set;
}

}  // namespace

StopSignals::StopSignals() {
  const sigset_t set = stop_set();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  signal(SIGPIPE, SIG_IGN);
}

int StopSignals::wait() {
  const sigset_t set = stop_set();
  for (;;) {
    const int number = sigwaitinfo(&set, nullptr);
    if (number > 0 || errno != EINTR) return number;
  }
}

std::optional<int> StopSignals::wait_for(std::chrono::milliseconds timeout) {
  const sigset_t set = stop_set();
  const timespec limit{timeout.count() / 1000, timeout.count() % 1000 * 1'000'000};
  const int number = sigtimedwait(&set, nullptr, &limit);
  if (number > 0) return number;
  return std::nullopt;
}

void StopSignals::request_stop() { kill(getpid(), SIGTERM); }

void StopSignals::exit_within(std::chrono::seconds limit, int exit_status) {
  // A handler may only touch what is async-signal-safe, so there is one per status.
  signal(
      SIGALRM, exit_status == 0 ? +[](int) { _exit(0); } : +[](int) { _exit(1); });
  alarm(static_cast<unsigned>(limit.count()));
}

}  // namespace chimera
