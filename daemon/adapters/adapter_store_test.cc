// What is in memory, who waits for whom, and what becomes of those that cannot be read.
#include "daemon/adapters/adapter_store.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <map>
#include <thread>

#include "base/threads/mutex.h"

namespace chimera {
namespace {

using namespace std::chrono_literals;
using AdapterPtr = AdapterStore::AdapterPtr;
using SourcePtr = AdapterStore::SourcePtr;

constexpr uint64_t kSize = 100;

AdapterPtr adapter(uint64_t bytes = kSize) {
  auto made = std::make_shared<Adapter>();
  made->bytes = bytes;
  return made;
}

/// Where adapters are read from: a disk that can be held up, and fail.
class Disk {
 public:
  AdapterStore::Read reader(const std::string& name, uint64_t bytes = kSize) {
    return [this, name, bytes]() -> Result<AdapterPtr> {
      const MutexLock lock(mutex_);
      ++begun_[name];
      changed_.notify_all();
      changed_.wait(mutex_, [this]() REQUIRES(mutex_) { return !stopped_; });
      if (broken_ == name) return Status(Code::kDataCorrupt, name + ": changed");
      return adapter(bytes);
    };
  }
  void stop(bool stopped) {
    const MutexLock lock(mutex_);
    stopped_ = stopped;
    changed_.notify_all();
  }
  void break_file(const std::string& name) {
    const MutexLock lock(mutex_);
    broken_ = name;
  }
  int begun(const std::string& name) {
    const MutexLock lock(mutex_);
    return begun_[name];
  }
  void await(const std::string& name) {
    const MutexLock lock(mutex_);
    const bool came =
        changed_.wait_for(mutex_, 100s, [&]() REQUIRES(mutex_) { return begun_[name] > 0; });
    EXPECT_TRUE(came) << name << " is not read";
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  bool stopped_ GUARDED_BY(mutex_) = false;
  std::string broken_ GUARDED_BY(mutex_);
  std::map<std::string, int> begun_ GUARDED_BY(mutex_);
};

template <class Condition>
void await(const Condition& condition) {
  const auto until = std::chrono::steady_clock::now() + 100s;
  while (!condition() && std::chrono::steady_clock::now() < until) std::this_thread::yield();
  ASSERT_TRUE(condition());
}

class Store : public ::testing::Test {
 protected:
  SourcePtr add(const std::string& name, uint64_t bytes = kSize) {
    return store_.add(name, adapter(bytes), disk_.reader(name, bytes));
  }
  /// Asks and waits for the answer.
  std::vector<AdapterPtr> fetch(std::vector<SourcePtr> sources) {
    const auto wait = store_.ask(std::move(sources), [] {});
    await([&] { return wait->over(); });
    const auto answer = wait->answer();
    EXPECT_TRUE(answer.ok()) << answer.status().to_string();
    return answer.ok() ? *answer : std::vector<AdapterPtr>();
  }

  Disk disk_;
  AdapterStore store_{3 * kSize};
};

TEST_F(Store, KeepsTheLastUsedAndReadsTheOthersAgain) {
  std::vector<SourcePtr> all;
  for (const char* name : {"a", "b", "c", "d", "e"}) all.push_back(add(name));
  EXPECT_EQ(store_.stats().registered, 5);
  EXPECT_EQ(store_.stats().resident, 3);  // what came in first: loading pushes nothing out
  EXPECT_EQ(store_.stats().bytes, 3 * kSize);
  EXPECT_EQ(all[3]->hold(), nullptr);
  EXPECT_EQ(all[3]->resident_bytes(), 0u);
  (void)all[0]->hold();
  fetch({all[3]});
  EXPECT_EQ(disk_.begun("d"), 1);
  EXPECT_EQ(all[1]->hold(), nullptr);  // the least recently used
  EXPECT_NE(all[0]->hold(), nullptr);
  fetch({all[0], all[2], all[3]});  // all are there
  const AdapterStats stats = store_.stats();
  EXPECT_EQ(stats.reads, 1u);
  EXPECT_EQ(stats.evictions, 1u);
  EXPECT_EQ(stats.bytes, 3 * kSize);
}

TEST_F(Store, WhatIsHeldStaysAndWhoNeedsItsRoomWaits) {
  std::vector<SourcePtr> all;
  for (const char* name : {"a", "b", "c", "d"}) all.push_back(add(name));
  auto held = fetch({all[0], all[1], all[2]});
  const AdapterPtr same = all[0]->hold();
  EXPECT_EQ(same.get(), held[0].get());
  const auto wait = store_.ask({all[3]}, [] {});
  EXPECT_FALSE(wait->over());
  EXPECT_TRUE(store_.contended());
  EXPECT_EQ(store_.stats().waiting, 1);
  EXPECT_EQ(store_.stats().in_use, 3);
  held.clear();  // a is still held
  await([&] { return wait->over(); });
  EXPECT_FALSE(store_.contended());
  EXPECT_NE(all[0]->hold(), nullptr);
  EXPECT_EQ(store_.stats().resident, 3);
}

TEST_F(Store, TheFirstToAskIsTheFirstToGet) {
  std::vector<SourcePtr> all;
  for (const char* name : {"a", "b", "c", "d", "e"}) all.push_back(add(name));
  auto held = fetch({all[0]});
  const AdapterPtr second = all[1]->hold();
  const AdapterPtr third = all[2]->hold();
  const auto large = store_.ask({all[3], all[4]}, [] {});  // needs two places
  const auto small = store_.ask({all[0]}, [] {});          // is there, and came later
  held.clear();
  EXPECT_FALSE(large->over());
  EXPECT_FALSE(small->over());
}

TEST_F(Store, AdaptersOfOneRequestComeTogetherOrNotAtAll) {
  std::vector<SourcePtr> all;
  for (const char* name : {"a", "b", "c", "d"}) all.push_back(add(name));
  const AdapterPtr a = all[0]->hold();
  const AdapterPtr b = all[1]->hold();
  // c is there, and waits for d without being kept for that: another one may have it meanwhile.
  const auto wait = store_.ask({all[1], all[2], all[3], all[0]}, [] {});
  EXPECT_TRUE(wait->over());
  EXPECT_EQ(wait->answer().status().code(), Code::kResourceExhausted);
  EXPECT_NE(wait->answer().status().message().find("b, c, d, a"), std::string::npos);
  const auto both = store_.ask({all[2], all[3]}, [] {});
  EXPECT_FALSE(both->over());
  EXPECT_EQ(store_.stats().in_use, 2);
}

TEST_F(Store, OneThatIsTooLargeIsRefused) {
  EXPECT_TRUE(store_.check_size("a", 3 * kSize).ok());
  const Status refused = store_.check_size("a", 3 * kSize + 1);
  EXPECT_EQ(refused.code(), Code::kResourceExhausted);
  EXPECT_NE(refused.message().find("memory.adapters"), std::string::npos);
}

TEST_F(Store, WhatFailsToBeReadIsToldToThoseThatWaitForIt) {
  const SourcePtr large = add("large", 3 * kSize);
  const SourcePtr a = add("a");
  const SourcePtr b = add("b");
  disk_.break_file("a");
  disk_.stop(true);
  std::atomic<int> told{0};
  const auto first = store_.ask({a, b}, [&] { ++told; });
  const auto second = store_.ask({a}, [&] { ++told; });
  const auto other = store_.ask({b}, [&] { ++told; });
  disk_.stop(false);
  await([&] { return told == 3; });
  EXPECT_EQ(first->answer().status().code(), Code::kDataCorrupt);
  EXPECT_EQ(second->answer().status().message(), "a: changed");
  EXPECT_TRUE(other->answer().ok());
  EXPECT_EQ(store_.stats().read_failures, 1u);
  EXPECT_EQ(store_.stats().bytes, kSize);
  disk_.break_file("");
  EXPECT_EQ(fetch({a}).size(), 1u);  // it is registered all the same
}

TEST_F(Store, WhoGoesAwayWaitsNoMore) {
  const SourcePtr large = add("large", 3 * kSize);
  const SourcePtr a = add("a");
  const SourcePtr b = add("b");
  disk_.stop(true);
  auto reading = store_.ask({a}, [] {});
  disk_.await("a");
  auto behind = store_.ask({b}, [] { ADD_FAILURE() << "told after it had gone"; });
  behind.reset();
  EXPECT_EQ(store_.stats().waiting, 1);
  reading.reset();
  disk_.stop(false);
  await([&] { return store_.stats().resident == 1; });
  EXPECT_EQ(disk_.begun("b"), 0);  // nobody wanted it any more
  EXPECT_EQ(store_.stats().in_use, 0);
  EXPECT_EQ(store_.stats().bytes, kSize);
}

TEST_F(Store, AModuleThatGoesTakesItsAdapterAlong) {
  SourcePtr a = add("a");
  SourcePtr b = add("b");
  AdapterPtr held = b->hold();
  a.reset();
  EXPECT_EQ(store_.stats().resident, 1);
  b.reset();
  EXPECT_EQ(store_.stats().registered, 0);
  EXPECT_EQ(store_.stats().bytes, kSize);  // somebody uses it still
  EXPECT_EQ(held->bytes, kSize);
  held.reset();
  EXPECT_EQ(store_.stats().bytes, 0u);
  EXPECT_EQ(store_.stats().resident, 0);
}

TEST_F(Store, WhatIsStillHeldMayOutliveIt) {
  Disk disk;
  SourcePtr there, absent;
  AdapterPtr held;
  std::unique_ptr<AdapterStore::Wait> wait;
  {
    AdapterStore store(kSize);
    there = store.add("a", adapter(), disk.reader("a"));
    absent = store.add("b", adapter(), disk.reader("b"));
    held = there->hold();
    wait = store.ask({absent}, [] {});
  }
  ASSERT_TRUE(wait->over());
  EXPECT_EQ(wait->answer().status().code(), Code::kUnavailable);
  EXPECT_EQ(held->bytes, kSize);
  EXPECT_EQ(absent->hold(), nullptr);
}

TEST(StoreStress, ManyThreadsGetWhatTheyAskForWithinTheLimit) {
  Disk disk;
  AdapterStore store(5 * kSize);
  std::vector<SourcePtr> all;
  for (int i = 0; i < 24; ++i) {
    const std::string name = std::to_string(i);
    all.push_back(store.add(name, adapter(), disk.reader(name)));
  }
  std::vector<std::thread> threads;
  for (size_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (size_t i = 0; i < 300; ++i) {
        const size_t first = (i * (t + 3) + t) % all.size();
        std::vector<SourcePtr> sources{all[first]};
        if (i % 3 == 0) sources.push_back(all[(first + 1 + t) % all.size()]);
        const auto wait = store.ask(sources, [] {});
        if (i % 7 == 0) continue;  // goes away at once
        await([&] { return wait->over(); });
        const auto answer = wait->answer();
        ASSERT_TRUE(answer.ok());
        ASSERT_EQ(answer->size(), sources.size());
        ASSERT_LE(store.stats().bytes, 5 * kSize);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const AdapterStats stats = store.stats();
  EXPECT_EQ(stats.in_use, 0);
  EXPECT_EQ(stats.waiting, 0);
}

}  // namespace
}  // namespace chimera
