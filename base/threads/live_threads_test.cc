#include "base/threads/live_threads.h"

#include <gtest/gtest.h>
#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <thread>

namespace chimera {
namespace {

size_t named(const std::string& name) {
  const auto threads = live_threads();
  return static_cast<size_t>(
      std::count_if(threads.begin(), threads.end(), [&](const auto& t) { return t.name == name; }));
}

TEST(LiveThreads, SeesWhatRunsByItsName) {
  std::atomic<bool> ready{false}, stop{false};
  std::thread thread([&] {
    pthread_setname_np(pthread_self(), "a (b) c");
    ready = true;
    while (!stop) std::this_thread::yield();
  });
  while (!ready) std::this_thread::yield();
  EXPECT_EQ(named("a (b) c"), 1u);
  stop = true;
  thread.join();
  EXPECT_EQ(named("a (b) c"), 0u);
}

// Counting the entries of /proc/self/task fails here about once in ten thousand rounds.
TEST(LiveThreads, AJoinedThreadIsGoneAtOnce) {
  const size_t before = live_threads().size();
  for (int round = 0; round < 20000; ++round) {
    std::thread([] {}).join();
    ASSERT_EQ(live_threads().size(), before) << "round " << round;
  }
}

}  // namespace
}  // namespace chimera
