#include "base/threads/mutex.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>
#include <type_traits>
#include <vector>

namespace chimera {
namespace {

using namespace std::chrono_literals;

static_assert(sizeof(Mutex) == sizeof(std::mutex));
static_assert(sizeof(CondVar) == sizeof(std::condition_variable));
static_assert(sizeof(MutexLock) == sizeof(void*));

/// One value at a time, handed from thread to thread.
struct Box {
  void put(int v) EXCLUDES(mutex) {
    {
      const MutexLock lock(mutex);
      value = v;
      full = true;
    }
    changed.notify_all();
  }
  int take() EXCLUDES(mutex) {
    const MutexLock lock(mutex);
    changed.wait(mutex, [this]() REQUIRES(mutex) { return full; });
    full = false;
    return value;
  }
  bool fills_within(std::chrono::milliseconds time) EXCLUDES(mutex) {
    const MutexLock lock(mutex);
    return changed.wait_for(mutex, time, [this]() REQUIRES(mutex) { return full; });
  }

  Mutex mutex;
  CondVar changed;
  int value GUARDED_BY(mutex) = 0;
  bool full GUARDED_BY(mutex) = false;
};

/// Whether another thread could take the mutex now.
bool is_free(Mutex& mutex) {
  bool taken = false;
  std::thread([&] {
    if (!mutex.try_lock()) return;
    taken = true;
    mutex.unlock();
  }).join();
  return taken;
}

TEST(Mutex, KeepsThreadsApart) {
  struct {
    Mutex mutex;
    int64_t count GUARDED_BY(mutex) = 0;
  } shared;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 20'000; ++i) {
        const MutexLock lock(shared.mutex);
        ++shared.count;
      }
    });
  for (std::thread& thread : threads) thread.join();
  const MutexLock lock(shared.mutex);
  EXPECT_EQ(shared.count, 80'000);
}

TEST(Mutex, IsHeldToTheEndOfTheBlock) {
  Mutex mutex;
  {
    const MutexLock lock(mutex);
    EXPECT_FALSE(is_free(mutex));
  }
  EXPECT_TRUE(is_free(mutex));
}

TEST(Mutex, AReleasableLockLetsGoForAWhile) {
  Mutex mutex;
  {
    ReleasableMutexLock lock(mutex);
    EXPECT_FALSE(is_free(mutex));
    lock.unlock();
    EXPECT_TRUE(is_free(mutex));
    lock.lock();
    EXPECT_FALSE(is_free(mutex));
  }
  EXPECT_TRUE(is_free(mutex));
  {
    ReleasableMutexLock lock(mutex);
    lock.unlock();
  }
  EXPECT_TRUE(is_free(mutex));
}

TEST(CondVar, WaitsWithoutTheMutexAndReturnsWithIt) {
  Box box;
  std::thread giver([&] { box.put(7); });  // takes the mutex that take() must let go of
  EXPECT_EQ(box.take(), 7);
  giver.join();
  EXPECT_TRUE(is_free(box.mutex));
}

TEST(CondVar, ATimedWaitTellsWhetherTheConditionHolds) {
  Box box;
  EXPECT_FALSE(box.fills_within(1ms));
  EXPECT_TRUE(is_free(box.mutex));
  box.put(1);
  EXPECT_TRUE(box.fills_within(0ms));
}

TEST(ThreadRole, BelongsToTheThreadThatIsInIt) {
  ThreadRole role;
  {
    const ThreadRoleScope scope(role);
    role.assert_here();
  }
  const ThreadRoleScope again(role);
#ifdef NDEBUG
  static_assert(std::is_empty_v<ThreadRole>);
#else
  EXPECT_DEATH(std::thread([&] { role.assert_here(); }).join(), "");
#endif
}

}  // namespace
}  // namespace chimera
