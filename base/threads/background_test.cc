#include "base/threads/background.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/resource.h>
#include <time.h>

#include <atomic>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>

#include "base/threads/each_parallel.h"
#include "base/threads/progress.h"

namespace chimera {
namespace {

/// Both threads of a test on one CPU, so that they need it from one another.
bool share_one_cpu() {
  cpu_set_t allowed, one;
  if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return false;
  CPU_ZERO(&one);
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &allowed)) continue;
    CPU_SET(cpu, &one);
    return sched_setaffinity(0, sizeof(one), &one) == 0;
  }
  return false;
}

double thread_cpu_s() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

/// How often a thread with 50 ms of work to do gave up its CPU, beside one that is always busy.
long switches_of_a_load(bool background) {
  std::atomic<bool> stop{false};
  std::thread busy([&] {
    share_one_cpu();
    while (!stop) continue;
  });
  long switches = 0;
  std::thread load([&] {
    share_one_cpu();
    const BackgroundScope scope(background);
    const double end = thread_cpu_s() + 0.05;
    while (thread_cpu_s() < end) give_way();
    rusage usage{};
    getrusage(RUSAGE_THREAD, &usage);
    switches = usage.ru_nvcsw + usage.ru_nivcsw;
    stop = true;
  });
  load.join();
  busy.join();
  return switches;
}

TEST(Background, GivesItsCpuAwayMoreOftenThanTheKernelTakesIt) {
  // The thread itself offers it every 0.25 ms of its own time, so about 200 times. How often the
  // kernel takes it depends on its version and on neighbours (15 to 50 times); a thread that offers
  // nothing never gives more than is taken, however often it is tried.
  long given = 0, taken = 0;
  for (int attempt = 0; attempt < 10; ++attempt) {
    taken = switches_of_a_load(false);
    given = switches_of_a_load(true);
    if (given > 80 && given > 2 * taken) return;
  }
  FAIL() << "given away " << given << " times, taken " << taken;
}

TEST(Background, IsAMatterOfTheThreadAndNests) {
  EXPECT_FALSE(in_background());
  {
    const BackgroundScope scope;
    EXPECT_TRUE(in_background());
    {
      const BackgroundScope inner;
      EXPECT_TRUE(in_background());
      const BackgroundScope suspended(false);
      EXPECT_FALSE(in_background());
    }
    EXPECT_TRUE(in_background());
    std::thread([] { EXPECT_FALSE(in_background()); }).join();
  }
  EXPECT_FALSE(in_background());
  const BackgroundScope none(false);
  EXPECT_FALSE(in_background());
}

TEST(Background, SaysWhetherThereIsSomebodyToGiveWayTo) {
  Foreground foreground;
  foreground.set_busy(true);
  EXPECT_FALSE(foreground_busy());  // not in the background
  {
    const BackgroundScope scope(&foreground);
    EXPECT_TRUE(foreground_busy());
    foreground.set_busy(false);
    EXPECT_FALSE(foreground_busy());
  }
  const BackgroundScope anybody;
  EXPECT_TRUE(foreground_busy());
}

TEST(EachParallel, HelpersWorkAsTheCallerDoesAndTheFirstErrorIsTold) {
  constexpr int64_t kBodies = 50;
  Progress progress;
  std::atomic<int> foreign{0};
  const BackgroundScope scope;
  const ProgressScope counted(&progress);
  const Status status = for_each_parallel(kBodies, [&](int64_t i) -> Status {
    if (!in_background() || current_progress() != &progress) ++foreign;
    note_progress(2);
    if (i == 30) throw std::bad_alloc();
    if (i == 20 || i == 40) return {Code::kDataCorrupt, std::to_string(i)};
    return {};
  });
  EXPECT_EQ(foreign, 0);
  EXPECT_EQ(progress.done(), 2u * kBodies);
  EXPECT_EQ(status.message(), "20");
  const Status memory = for_each_parallel(2, [](int64_t) -> Status { throw std::bad_alloc(); });
  EXPECT_EQ(memory.code(), Code::kResourceExhausted);
  const Status other =
      for_each_parallel(50, [](int64_t) -> Status { throw std::runtime_error("no"); });
  EXPECT_EQ(other.code(), Code::kInternal);
  EXPECT_EQ(other.message(), "no");
}

/// How often a thread with 100 ms of work to do slept, beside one that is always busy.
long sleeps_of_a_load(Foreground* foreground) {
  std::atomic<bool> stop{false};
  std::thread busy([&] {
    share_one_cpu();
    while (!stop) continue;
  });
  long sleeps = 0;
  std::thread load([&] {
    share_one_cpu();
    const BackgroundScope scope(foreground);
    rusage before{}, after{};
    getrusage(RUSAGE_THREAD, &before);
    const double end = thread_cpu_s() + 0.1;
    while (thread_cpu_s() < end) give_way();
    getrusage(RUSAGE_THREAD, &after);
    sleeps = after.ru_nvcsw - before.ru_nvcsw;
    stop = true;
  });
  load.join();
  busy.join();
  return sleeps;
}

TEST(Background, RestsOnlyWhileThereAreStreams) {
  // Work of 100 ms is 400 bursts. How many of them end in a rest depends on whether the kernel
  // takes what is offered, and what else makes a thread sleep on the neighbours; one that never
  // rests beside streams, or always does, shows no such difference however often it is tried.
  Foreground foreground;
  long quiet = 0, rested = 0;
  for (int attempt = 0; attempt < 10; ++attempt) {
    foreground.set_busy(false);
    quiet = sleeps_of_a_load(&foreground);
    foreground.set_busy(true);
    rested = sleeps_of_a_load(&foreground);
    if (rested > 10 && rested > 2 * quiet) return;
  }
  FAIL() << "rested " << rested << " times beside streams, " << quiet << " without";
}

TEST(Background, BurstsOfAllThreadsShareOneBudget) {
  Foreground foreground;
  const Foreground::Clock::time_point now{std::chrono::seconds(1000)};
  const auto first = foreground.next_burst(now);
  EXPECT_GT(first, now);
  const auto apart = foreground.next_burst(now) - first;
  EXPECT_GT(apart.count(), 0) << "two bursts at a time where one had been given away";
  EXPECT_EQ(foreground.next_burst(now), first + 2 * apart);
  // What nobody used is not saved up.
  const auto later = now + std::chrono::seconds(1);
  EXPECT_EQ(foreground.next_burst(later) - later, first - now);
}

TEST(Background, HelpersAreInTheScopeOfWhomTheyHelp) {
  Foreground foreground;
  const auto helped = [](const BackgroundHelper& helper) {
    bool background = false;
    std::thread([&] {
      const BackgroundScope scope = helper.scope();
      background = in_background();
    }).join();
    return background;
  };
  EXPECT_FALSE(helped(BackgroundHelper()));
  const BackgroundScope scope(&foreground);
  EXPECT_TRUE(helped(BackgroundHelper()));
}

}  // namespace
}  // namespace chimera
