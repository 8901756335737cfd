#include "base/threads/thread_pool.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <thread>
#include <vector>

#include "base/threads/background.h"
#include "base/threads/cpu_count.h"

namespace chimera {
namespace {

TEST(ThreadPool, CoversEveryIndexOnceInRangesOfAtMostGrain) {
  for (int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    for (int64_t count : {0, 1, 2, 7, 64, 1000}) {
      for (int64_t grain : {0, 1, 3, 64, 5000}) {
        std::vector<std::atomic<int>> hits(static_cast<size_t>(count));
        std::atomic<bool> in_grain{true};
        pool.parallel_for(count, grain, [&](int64_t begin, int64_t end) {
          if (end - begin > std::max<int64_t>(grain, 1) || end <= begin) in_grain = false;
          for (int64_t i = begin; i < end; ++i) ++hits[static_cast<size_t>(i)];
        });
        EXPECT_TRUE(in_grain) << threads << " threads, grain " << grain;
        for (const auto& h : hits) ASSERT_EQ(h.load(), 1);
      }
    }
  }
}

TEST(ThreadPool, ResultsAreVisibleToTheCallerAfterEveryOfManyJobs) {
  ThreadPool pool(4);
  std::vector<int64_t> values(64, 0);  // plain: ThreadSanitizer sees a missing ordering
  for (int64_t job = 1; job <= 20000; ++job) {
    pool.parallel_for(64, 4, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) values[static_cast<size_t>(i)] += i;
    });
    if (job % 1000 == 0) {
      ASSERT_EQ(std::accumulate(values.begin(), values.end(), int64_t{0}), job * 63 * 32);
    }
  }
}

TEST(ThreadPool, WakesWorkersThatWentToSleep) {
  ThreadPool pool(3);
  for (int round = 0; round < 20; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    std::atomic<int64_t> sum{0};
    pool.parallel_for(100, 1, [&](int64_t begin, int64_t) { sum += begin; });
    ASSERT_EQ(sum, 4950);
  }
}

TEST(ThreadPool, UsesSeveralThreads) {
  ThreadPool pool(2);
  std::atomic<int> inside{0};
  std::atomic<bool> met{false};
  // Two chunks that wait for one another can only both arrive on two threads.
  pool.parallel_for(2, 1, [&](int64_t, int64_t) {
    ++inside;
    const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (inside < 2 && std::chrono::steady_clock::now() < give_up) std::this_thread::yield();
    if (inside == 2) met = true;
  });
  EXPECT_TRUE(met);
}

TEST(ThreadPool, HelpersGiveWayAsTheOwnerDoes) {
  ThreadPool pool(2);
  Foreground foreground;
  foreground.set_busy(true);
  const BackgroundScope scope(&foreground);
  std::vector<std::atomic<int>> hits(5);
  std::atomic<int> inside{0}, giving{0};
  pool.parallel_for(9, 2, [&](int64_t begin, int64_t) {
    ++hits[static_cast<size_t>(begin / 2)];
    if (foreground_busy()) ++giving;
    ++inside;
    // The first two can only both arrive on two threads.
    const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (inside < 2 && std::chrono::steady_clock::now() < give_up) std::this_thread::yield();
  });
  for (const auto& h : hits) EXPECT_EQ(h.load(), 1);
  EXPECT_EQ(giving, 5);
  const BackgroundScope suspended(false);
  pool.parallel_for(5, 1, [&](int64_t, int64_t) { giving -= in_background() ? 0 : 1; });
  EXPECT_EQ(giving, 0);
}

TEST(ThreadPool, IdlePoolUsesNoCpu) {
  ThreadPool pool(4);
  pool.parallel_for(16, 1, [](int64_t, int64_t) {});
  std::this_thread::sleep_for(std::chrono::milliseconds(20));  // past the spinning
  const auto cpu_us = [] {
    rusage use{};
    getrusage(RUSAGE_SELF, &use);
    return (use.ru_utime.tv_sec + use.ru_stime.tv_sec) * 1000000 + use.ru_utime.tv_usec +
           use.ru_stime.tv_usec;
  };
  // On a busy machine a worker may still be on its way to sleep: one idle stretch is enough, and a
  // pool that spins has none.
  long used = 0;
  for (int stretch = 0; stretch < 20; ++stretch) {
    const auto before = cpu_us();
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    used = cpu_us() - before;
    if (used < 30000) return;
  }
  FAIL() << used << " microseconds of CPU in 300 ms of idleness, 20 times";
}

TEST(CpuCount, AutoIsAtLeastOneAndWithinTheMachine) {
  EXPECT_GE(auto_threads(), 1);
  EXPECT_LE(auto_threads(), static_cast<int>(std::thread::hardware_concurrency()));
}

class CgroupFiles : public testing::Test {
 protected:
  void SetUp() override {
    root_ =
        std::filesystem::temp_directory_path() / ("chimera_cgroup_" + std::to_string(::getpid()));
    std::filesystem::create_directories(root_);
  }
  void TearDown() override { std::filesystem::remove_all(root_); }
  void put(const std::string& path, const std::string& text) {
    std::filesystem::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }
  int quota(std::string_view proc) { return cgroup_cpu_quota(proc, root_.string()); }
  std::filesystem::path root_;
};

TEST_F(CgroupFiles, NoLimitIsZero) {
  EXPECT_EQ(quota(""), 0);
  EXPECT_EQ(quota("0::/\n"), 0);
  EXPECT_EQ(quota("garbage\n:::\n"), 0);
  put("cpu.max", "max 100000\n");
  EXPECT_EQ(quota("0::/\n"), 0);
}

TEST_F(CgroupFiles, VersionTwoTakesTheTightestGroupAbove) {
  put("a/cpu.max", "150000 100000\n");
  put("a/b/cpu.max", "400000 100000\n");
  EXPECT_EQ(quota("0::/a/b\n"), 1);
  put("a/cpu.max", "max 100000\n");
  EXPECT_EQ(quota("0::/a/b\n"), 4);
  put("a/b/cpu.max", "1000 100000\n");
  EXPECT_EQ(quota("0::/a/b\n"), 1) << "a fraction of one CPU still is one thread";
}

TEST_F(CgroupFiles, VersionOne) {
  put("cpu/job/cpu.cfs_quota_us", "300000\n");
  put("cpu/job/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(quota("4:cpuset:/\n3:cpu,cpuacct:/job\n"), 3);
  put("cpu/job/cpu.cfs_quota_us", "-1\n");
  EXPECT_EQ(quota("3:cpu,cpuacct:/job\n"), 0);
}

}  // namespace
}  // namespace chimera
