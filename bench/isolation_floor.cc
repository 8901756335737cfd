// The floor of `isolation`: what waking another process costs on this machine at this moment.
#include <fmt/format.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <stdexcept>
#include <vector>

#include "experts/isolation/memory_layout.h"
#include "isolation.h"
#include "stats.h"

namespace chimera::bench {
namespace {

constexpr int kRoundTrips = 4000;
constexpr int kSpinBeforeYield = 2000;

struct Shared {
  alignas(64) std::atomic<uint32_t> there{0};
  alignas(64) std::atomic<uint32_t> back{0};
};

/// Both sides are given the word they wait for and its old value; they return when it changed.
struct Busy {
  static constexpr const char* kName = "busy";
  static void wait(std::atomic<uint32_t>& word, uint32_t old, int) {
    for (int i = 0; word.load(std::memory_order_acquire) == old; ++i) {
      if (i % kSpinBeforeYield == kSpinBeforeYield - 1) sched_yield();  // it may share our CPU
    }
  }
  static void post(std::atomic<uint32_t>& word, int) { word.fetch_add(1); }
};

struct Futex {
  static constexpr const char* kName = "futex";
  static void wait(std::atomic<uint32_t>& word, uint32_t old, int) {
    while (word.load(std::memory_order_acquire) == old) {
      host_layout::futex_wait(word, old, std::chrono::seconds(1));
    }
  }
  static void post(std::atomic<uint32_t>& word, int) {
    word.fetch_add(1);
    host_layout::futex_wake(word);
  }
};

struct EventFd {
  static constexpr const char* kName = "eventfd";
  static void wait(std::atomic<uint32_t>&, uint32_t, int fd) {
    uint64_t count = 0;
    (void)!read(fd, &count, sizeof(count));
  }
  static void post(std::atomic<uint32_t>&, int fd) {
    const uint64_t one = 1;
    (void)!write(fd, &one, sizeof(one));
  }
};

template <class Way>
void measure() {
  void* memory =
      mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::runtime_error("mmap failed");
  auto* shared = new (memory) Shared;
  const int there = eventfd(0, EFD_CLOEXEC), back = eventfd(0, EFD_CLOEXEC);
  const pid_t peer = fork();
  if (peer == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (uint32_t seen = 0;; ++seen) {
      Way::wait(shared->there, seen, there);
      Way::post(shared->back, back);
    }
  }
  std::vector<double> us;
  for (uint32_t i = 0; i < kRoundTrips; ++i) {
    const double start = now_s();
    Way::post(shared->there, there);
    Way::wait(shared->back, i, back);
    us.push_back(1e6 * (now_s() - start));
  }
  kill(peer, SIGKILL);
  waitpid(peer, nullptr, 0);
  close(there);
  close(back);
  munmap(memory, sizeof(Shared));
  fmt::print("{:<12}{:>10.1f}{:>10.1f}{:>10.1f}{:>10.1f}\n", Way::kName, quantile(us, 0.1),
             quantile(us, 0.5), quantile(us, 0.9), quantile(us, 0.99));
}

}  // namespace

void print_load() {
  std::string one, five;
  std::ifstream("/proc/loadavg") >> one >> five;
  fmt::print("load average {} (5 min {}), {} CPUs\n", one, five, sysconf(_SC_NPROCESSORS_ONLN));
}

void floors() {
  fmt::print("\nfloor: round trip between two processes, us\n{:<12}{:>10}{:>10}{:>10}{:>10}\n", "",
             "p10", "p50", "p90", "p99");
  measure<Busy>();
  measure<Futex>();
  measure<EventFd>();
}

}  // namespace chimera::bench
