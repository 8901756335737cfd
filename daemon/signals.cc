#include "daemon/signals.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

#include <cerrno>

namespace chimera {
namespace {

// Those that end a process unless it says otherwise, with the real-time ones; SIGALRM until
// exit_within() takes it for itself. Faults (SIGSEGV, SIGABRT, …) keep their meaning.
constexpr int kStopSignals[] = {SIGTERM, SIGINT,    SIGQUIT, SIGUSR1, SIGUSR2,   SIGPWR,
                                SIGXCPU, SIGVTALRM, SIGPROF, SIGIO,   SIGSTKFLT, SIGALRM};
// A closed log pipe and a file at its limit: the write fails with a status of its own.
constexpr int kIgnoredSignals[] = {SIGPIPE, SIGXFSZ};

sigset_t stop_set() {
  sigset_t set;
  sigemptyset(&set);
  for (const int number : kStopSignals) sigaddset(&set, number);
  for (int number = SIGRTMIN; number <= SIGRTMAX; ++number) sigaddset(&set, number);
  return set;
}

sigset_t watched_set() {
  sigset_t set = stop_set();
  sigaddset(&set, SIGHUP);
  return set;
}

std::string name_of(int number) {
  if (const char* name = sigabbrev_np(number)) return std::string("SIG") + name;
  const int above = number - SIGRTMIN;
  return above == 0 ? "SIGRTMIN" : "SIGRTMIN+" + std::to_string(above);
}

}  // namespace

Signals::Signals() {
  const sigset_t set = watched_set();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  for (const int number : kIgnoredSignals) signal(number, SIG_IGN);
}

ReceivedSignal Signals::wait() {
  const sigset_t set = watched_set();
  int number = -1;
  while ((number = sigwaitinfo(&set, nullptr)) < 0 && errno == EINTR) {
  }
  return {number == SIGHUP ? Wish::kReload : Wish::kStop, name_of(number)};
}

bool Signals::stop_requested() {
  const sigset_t set = stop_set();
  const timespec now{};
  return sigtimedwait(&set, nullptr, &now) > 0;
}

void Signals::request_stop() { kill(getpid(), SIGTERM); }

void Signals::exit_within(std::chrono::seconds limit, int exit_status) {
  // A handler may only touch what is async-signal-safe, so there is one per status.
  signal(
      SIGALRM, exit_status == 0 ? +[](int) { _exit(0); } : +[](int) { _exit(1); });
  sigset_t own;
  sigemptyset(&own);
  sigaddset(&own, SIGALRM);
  pthread_sigmask(SIG_UNBLOCK, &own, nullptr);
  alarm(static_cast<unsigned>(limit.count()));
}

}  // namespace chimera
