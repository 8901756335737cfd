#include "daemon/memory/ledger.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

namespace chimera {
namespace {

using testing::HasSubstr;

constexpr uint64_t kMiB = 1u << 20;
constexpr uint64_t kGiB = 1u << 30;

MemoryBudget budget(uint64_t bytes) { return {bytes, bytes, 0, "memory.budget"}; }

TEST(MemoryBudget, AutomaticIsTheLimitLessAReserve) {
  const auto automatic = [](uint64_t limit) { return memory_budget({}, {limit, "here"}); };
  EXPECT_EQ(automatic(400 * kMiB).bytes, 352 * kMiB);
  EXPECT_EQ(automatic(400 * kMiB).reserve, 48 * kMiB);
  EXPECT_EQ(automatic(16 * kGiB).bytes, 15 * kGiB);
  EXPECT_EQ(automatic(256 * kGiB).reserve, 2 * kGiB);
  EXPECT_EQ(automatic(256 * kGiB).source, "here");
  // Stacks of threads count as address space.
  EXPECT_EQ(memory_budget({}, {400 * kMiB, std::string(kAddressSpace)}).reserve, 144 * kMiB);
  EXPECT_EQ(automatic(10 * kMiB).bytes, 5 * kMiB);
  EXPECT_EQ(automatic(0).bytes, 0u);
  const MemoryBudget stated = memory_budget(3 * kGiB, {kGiB, "here"});
  EXPECT_EQ(stated.bytes, 3 * kGiB);
  EXPECT_EQ(stated.limit, kGiB);
  EXPECT_EQ(stated.source, "memory.budget");
}

TEST(Ledger, WhatDoesNotFitIsRefusedAndSaysWhatWouldHaveToGo) {
  Ledger ledger(budget(100 * kMiB));
  auto kv = ledger.take(MemoryUse::kKeyValue, "", 40 * kMiB, "cache");
  ASSERT_TRUE(kv.ok());
  auto legal = ledger.take(MemoryUse::kModule, "legal 1", 30 * kMiB, "module legal");
  auto bio = ledger.take(MemoryUse::kModule, "bio 1", 10 * kMiB, "module bio");
  ASSERT_TRUE(legal.ok() && bio.ok());
  const auto refused = ledger.take(MemoryUse::kModule, "finance 1", 45 * kMiB, "module finance");
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.status().code(), Code::kResourceExhausted);
  EXPECT_THAT(
      refused.status().message(),
      HasSubstr("module finance: needs 45.0 MiB of memory, and 20.0 MiB of the budget of 100 "
                "MiB are free (held: 80.0 MiB: key_value 40.0 MiB, module legal 1 30.0 MiB, "
                "module bio 1 10.0 MiB)"));
  EXPECT_THAT(refused.status().hint(), HasSubstr("unload legal 1 (30.0 MiB), or"));
  EXPECT_THAT(ledger.check(55 * kMiB, "x").hint(),
              HasSubstr("unload legal 1 (30.0 MiB), bio 1 (10.0 MiB), or"));
  EXPECT_THAT(ledger.check(90 * kMiB, "x").hint(), HasSubstr("no modules are large enough"));
  EXPECT_EQ(ledger.account().used, 80 * kMiB) << "a refusal takes nothing";
  EXPECT_TRUE(ledger.take(MemoryUse::kModule, "small", 20 * kMiB, "module small").ok());
}

TEST(Ledger, WhatNobodyUsesGoesBeforeAnythingIsRefused) {
  Ledger ledger(budget(100 * kMiB));
  std::vector<Ledger::Place> idle;
  for (int i = 0; i < 3; ++i) {
    auto place = ledger.take(MemoryUse::kBackbone, "idle", 20 * kMiB, "idle");
    ASSERT_TRUE(place.ok());
    idle.push_back(std::move(*place));
  }
  int asked = 0;
  const auto bytes = [&] { return idle.size() * 20 * kMiB; };
  ledger.set_idle({bytes, [&] {
                     ++asked;
                     if (idle.empty()) return false;
                     idle.pop_back();
                     return true;
                   }});
  auto fits = ledger.take(MemoryUse::kModule, "legal", 40 * kMiB, "module legal");
  ASSERT_TRUE(fits.ok());
  EXPECT_EQ(asked, 0);
  auto more = ledger.take(MemoryUse::kModule, "bio", 35 * kMiB, "module bio");
  ASSERT_TRUE(more.ok());
  EXPECT_EQ(idle.size(), 1u) << "no more than is needed";
  EXPECT_FALSE(ledger.check(26 * kMiB, "x").ok());
  EXPECT_EQ(idle.size(), 1u) << "it would not have been enough";
  EXPECT_TRUE(ledger.check(25 * kMiB, "x").ok());
  EXPECT_EQ(idle.size(), 0u);
  EXPECT_FALSE(ledger.check(26 * kMiB, "x").ok());
  more->evict(35 * kMiB);
  EXPECT_TRUE(more->grow_back(35 * kMiB, "bio").ok());
  ledger.set_idle({});
  EXPECT_FALSE(ledger.check(26 * kMiB, "x").ok());
}

TEST(Ledger, PlacesGoWithWhatTheyStandFor) {
  Ledger ledger(budget(kGiB));
  {
    auto place = ledger.take(MemoryUse::kModule, "m", 100 * kMiB, "m");
    ASSERT_TRUE(place.ok());
    place->correct(300 * kMiB);
    EXPECT_EQ(ledger.account().used, 300 * kMiB);
    Ledger::Place moved = std::move(*place);
    EXPECT_EQ(ledger.account().entries.size(), 1u);
    auto other = ledger.take(MemoryUse::kModule, "n", kMiB, "n");
    moved = std::move(*other);
    EXPECT_EQ(ledger.account().used, kMiB) << "what it stood for before is given up";
  }
  EXPECT_EQ(ledger.account().used, 0u);
}

TEST(Ledger, MoreThanWasThoughtBlocksTheNext) {
  Ledger ledger(budget(100 * kMiB));
  auto place = ledger.take(MemoryUse::kModule, "m", 50 * kMiB, "m");
  ASSERT_TRUE(place.ok());
  place->correct(150 * kMiB);
  EXPECT_EQ(ledger.account().free(), 0u);
  EXPECT_FALSE(ledger.take(MemoryUse::kModule, "n", 1, "n").ok());
}

TEST(Ledger, WithoutABudgetNothingIsRefusedAndAllIsCounted) {
  Ledger ledger(budget(0));
  auto place = ledger.take(MemoryUse::kBackbone, "", 1ull << 60, "backbone");
  ASSERT_TRUE(place.ok());
  EXPECT_EQ(ledger.account().used, 1ull << 60);
}

TEST(Ledger, ManyAtOnceNeverExceedTheBudget) {
  Ledger ledger(budget(1000));
  std::vector<std::thread> threads;
  std::atomic<bool> exceeded{false};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 2000; ++i) {
        const auto place = ledger.take(MemoryUse::kModule, "m", 300, "m");
        if (ledger.account().used > 1000) exceeded = true;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_FALSE(exceeded);
  EXPECT_EQ(ledger.account().used, 0u);
}

}  // namespace
}  // namespace chimera
