// How the shared memory of memory.h is laid out, for the two ends and their tests.
//
// Thread safety: one writer and one reader per direction, in two processes; counters are atomic,
// slots are copied once.
#pragma once

#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <boost/interprocess/mapped_region.hpp>
#include <chrono>
#include <cstring>
#include <thread>

#include "experts/isolation/memory.h"

namespace chimera::host_layout {

static_assert(std::atomic<uint32_t>::is_always_lock_free);

// Each counter on a cache line of its own: its writer and its reader are on different CPUs.
struct alignas(64) Line {
  std::atomic<uint32_t> value{0};
};

/// What a side writes. `posted` counts what it has published and is the word that the other side
/// sleeps on; `taken` counts what it has consumed; `asleep` says that it may need to be woken.
struct Counters {
  Line posted, taken, asleep, cancel;
};

struct ToHost {
  Counters counters;
  HostRequest slots[kHostSlots];
};

struct FromHost {
  Counters counters;
  HostResponse slots[kHostSlots];
  char texts[kHostSlots][kHostTextBytes];
};

inline constexpr uint64_t kPage = 4096;
// Rows begin on the page after the counters and slots.
inline constexpr uint64_t kToHostRows = kPage;
inline constexpr uint64_t kFromHostRows = 2 * kPage;
static_assert(sizeof(ToHost) <= kToHostRows && sizeof(FromHost) <= kFromHostRows);

// What a guard line holds: a pattern that no float arithmetic leaves behind.
inline constexpr unsigned char kGuard = 0xd7;

/// A copy of a descriptor in memory that the other side may be writing to: every word is read once.
template <class T>
T copy_once(const T& shared) {
  static_assert(sizeof(T) % sizeof(uint64_t) == 0 && alignof(T) == alignof(uint64_t));
  uint64_t words[sizeof(T) / sizeof(uint64_t)];
  const auto* from = reinterpret_cast<const uint64_t*>(&shared);
  for (size_t i = 0; i < std::size(words); ++i) {
    words[i] = __atomic_load_n(from + i, __ATOMIC_RELAXED);
  }
  T copy;
  std::memcpy(&copy, words, sizeof(copy));
  return copy;
}
template <class T>
void store_once(T& shared, const T& value) {
  uint64_t words[sizeof(T) / sizeof(uint64_t)];
  std::memcpy(words, &value, sizeof(value));
  auto* to = reinterpret_cast<uint64_t*>(&shared);
  for (size_t i = 0; i < std::size(words); ++i)
    __atomic_store_n(to + i, words[i], __ATOMIC_RELAXED);
}

/// Maps all of `fd`; an errno as Status otherwise.
Result<boost::interprocess::mapped_region> map_file(int fd, boost::interprocess::mode_t mode,
                                                    uint64_t bytes);

/// Sleeps while `word` is `expected`, at most `limit`. Returns early for any reason.
inline void futex_wait(const std::atomic<uint32_t>& word, uint32_t expected,
                       std::chrono::nanoseconds limit) {
  const auto s = std::chrono::duration_cast<std::chrono::seconds>(limit);
  const timespec t{static_cast<time_t>(s.count()), static_cast<long>((limit - s).count())};
  syscall(SYS_futex, &word, FUTEX_WAIT, expected, &t, nullptr, 0);
}
inline void futex_wake(const std::atomic<uint32_t>& word) {
  syscall(SYS_futex, &word, FUTEX_WAKE, 1, nullptr, nullptr, 0);
}

/// Publishes the next value of a counter and wakes the other side if it sleeps on it. Sequentially
/// consistent on both words: either the sleeper sees the new count, or we see that it sleeps.
inline void post(Line& posted, uint32_t value, const Line& other_asleep) {
  posted.value.store(value, std::memory_order_seq_cst);
  if (other_asleep.value.load(std::memory_order_seq_cst) != 0) futex_wake(posted.value);
}

}  // namespace chimera::host_layout

namespace chimera {

inline void spin_pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

template <class Ready>
bool AdaptiveSpin::wait(Ready&& ready) {
  if (ready()) return true;
  if (!enabled_) return false;
  if (to_skip_ > 0) {
    --to_skip_;
    return false;
  }
  using Clock = std::chrono::steady_clock;
  constexpr int kPausesPerClockRead = 16;
  const Clock::time_point end = Clock::now() + budget_;
  for (;;) {
    for (int i = 0; i < kPausesPerClockRead; ++i) {
      if (ready()) return succeeded(), true;
      spin_pause();
    }
    if (Clock::now() >= end) return failed(), false;
  }
}

}  // namespace chimera
