#include "backbone/forward/kv_cache.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <set>

#include "base/testing.h"
#include "compute/tensor/tensor.h"

namespace chimera {
namespace {

ModelConfig small_model() {
  ModelConfig c;
  c.num_layers = 3;
  c.num_kv_heads = 2;
  c.head_dim = 8;
  c.v_head_dim = 8;
  return c;
}

std::unique_ptr<KvCache> make_cache(int64_t blocks, bool prefix_cache = true,
                                    int64_t keep_cached = 0) {
  auto cache = KvCache::create(small_model(), {4, blocks, prefix_cache, keep_cached});
  EXPECT_TRUE(cache.ok()) << cache.status().to_string();
  return std::move(*cache);
}

std::string key(int n) { return "key" + std::to_string(n); }

constexpr KvFormat kFormats[] = {KvFormat::kF32, KvFormat::kF16, KvFormat::kBF16};

float* floats(std::byte* numbers) { return reinterpret_cast<float*>(numbers); }

void expect_separate_planes(KvFormat format) {
  auto made = KvCache::create(small_model(), {4, 3, true, 0, format});
  ASSERT_TRUE(made.ok());
  KvCache* cache = made->get();
  constexpr int64_t kPlane = 4 * 2 * 8;
  const int64_t plane_bytes = kPlane * kv_number_bytes(format);
  std::vector<std::byte*> planes;
  for (int b = 0; b < 3; ++b) {
    const auto id = cache->allocate();
    ASSERT_TRUE(id.ok());
    for (int64_t l = 0; l < 3; ++l) {
      planes.push_back(cache->keys(*id, l));
      planes.push_back(cache->values(*id, l));
    }
  }
  EXPECT_EQ(cache->format(), format);
  EXPECT_EQ(cache->reserved_bytes(), planes.size() * static_cast<size_t>(plane_bytes));
  EXPECT_EQ(cache->block_bytes(), KvCache::block_bytes(small_model(), 4, format));
  for (size_t i = 0; i < planes.size(); ++i) {
    const std::vector<float> row(kPlane, static_cast<float>(i));
    narrow_numbers(format, row.data(), kPlane, planes[i]);
  }
  for (size_t i = 0; i < planes.size(); ++i) {
    std::vector<float> row(kPlane);
    widen_numbers(format, planes[i], kPlane, row.data());
    for (const float value : row) ASSERT_EQ(value, static_cast<float>(i));
  }
}

TEST(KvCache, PlanesOfBlocksAndLayersDoNotOverlap) {
  for (const KvFormat format : kFormats) expect_separate_planes(format);
}

TEST(KvFormat, TwoBytesAreWidenedExactlyAndRoundedToTheNearest) {
  std::vector<uint16_t> halves(1 << 16);
  std::iota(halves.begin(), halves.end(), uint16_t{0});
  std::vector<float> wide(halves.size());
  std::vector<uint16_t> back(halves.size());
  const auto n = static_cast<int64_t>(halves.size());
  for (const KvFormat format : {KvFormat::kF16, KvFormat::kBF16}) {
    widen_numbers(format, reinterpret_cast<const std::byte*>(halves.data()), n, wide.data());
    narrow_numbers(format, wide.data(), n, reinterpret_cast<std::byte*>(back.data()));
    for (size_t i = 0; i < halves.size(); ++i) {
      const float expected =
          format == KvFormat::kF16 ? f16_to_f32(halves[i]) : bf16_to_f32(halves[i]);
      if (std::isnan(expected)) {
        ASSERT_TRUE(std::isnan(wide[i])) << i;
        continue;
      }
      ASSERT_EQ(std::bit_cast<uint32_t>(wide[i]), std::bit_cast<uint32_t>(expected)) << i;
      ASSERT_EQ(back[i], halves[i]);
    }
  }
}

TEST(KvFormat, WhatIsBeyondF16BecomesItsLargestAndInfinityStays) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const std::vector<float> from = {65504.0f,  65536.0f,   -1e30f,
                                   kInfinity, -kInfinity, std::numeric_limits<float>::quiet_NaN()};
  std::vector<uint16_t> stored(from.size());
  std::vector<float> wide(from.size());
  const auto n = static_cast<int64_t>(from.size());
  auto* const bytes = reinterpret_cast<std::byte*>(stored.data());
  narrow_numbers(KvFormat::kF16, from.data(), n, bytes);
  widen_numbers(KvFormat::kF16, bytes, n, wide.data());
  EXPECT_EQ(std::vector<float>(wide.begin(), wide.end() - 1),
            (std::vector<float>{65504.0f, 65504.0f, -65504.0f, kInfinity, -kInfinity}));
  EXPECT_TRUE(std::isnan(wide.back()));
}

TEST(KvCache, ExhaustionIsAnErrorAndReleaseCuresIt) {
  auto cache = make_cache(2);
  const auto a = cache->allocate();
  const auto b = cache->allocate();
  ASSERT_TRUE(a.ok() && b.ok());
  EXPECT_EQ(cache->available_blocks(), 0);
  EXPECT_EQ(cache->allocate().status().code(), Code::kResourceExhausted);
  cache->add_ref(*a);
  cache->release(*a);
  EXPECT_FALSE(cache->allocate().ok()) << "one reference is left";
  cache->release(*a);
  EXPECT_EQ(cache->available_blocks(), 1);
  EXPECT_TRUE(cache->allocate().ok());
}

TEST(KvCache, CachedBlocksAreFoundUntilEvictedLeastRecentlyUsedFirst) {
  auto cache = make_cache(3);
  std::vector<KvCache::BlockId> ids;
  for (int i = 0; i < 3; ++i) {
    ids.push_back(*cache->allocate());
    cache->publish(ids.back(), key(i));
  }
  for (KvCache::BlockId id : ids) cache->release(id);  // 0 unused longest
  EXPECT_EQ(cache->available_blocks(), 3);
  EXPECT_EQ(cache->lookup(key(0)), ids[0]);
  cache->release(ids[0]);  // now 1 is unused longest
  const auto fresh = cache->allocate();
  ASSERT_TRUE(fresh.ok());
  EXPECT_EQ(*fresh, ids[1]);
  EXPECT_EQ(cache->lookup(key(1)), -1) << "an evicted block must not be found";
  EXPECT_EQ(cache->lookup(key(2)), ids[2]);
  EXPECT_EQ(cache->lookup(key(0)), ids[0]);
  EXPECT_EQ(cache->available_blocks(), 0);
}

/// One client, one request at a time: each leaves a full block that a prefix finds.
void run_requests(KvCache& cache, int from, int count) {
  for (int i = from; i < from + count; ++i) {
    const auto id = cache.allocate();
    ASSERT_TRUE(id.ok());
    cache.publish(*id, key(i));
    cache.release(*id);
  }
}

TEST(KvCache, WhatIsThereIsUsedAgainBeforeMemoryGrows) {
  auto cache = make_cache(1000);
  run_requests(*cache, 0, 500);
  EXPECT_EQ(cache->resident_blocks(), 1);
  EXPECT_EQ(cache->cached_blocks(), 1);
  EXPECT_GE(cache->lookup(key(499)), 0);

  auto keeping = make_cache(1000, true, /*keep_cached=*/10);
  run_requests(*keeping, 0, 500);
  EXPECT_EQ(keeping->resident_blocks(), 11);
  EXPECT_EQ(keeping->cached_blocks(), 11);
  EXPECT_EQ(keeping->lookup(key(488)), -1);
  EXPECT_GE(keeping->lookup(key(489)), 0);
}

TEST(KvCache, MoreCachedBlocksThanAreKeptGiveWayOnlyToNeed) {
  auto cache = make_cache(4, true, /*keep_cached=*/4);
  run_requests(*cache, 0, 4);
  EXPECT_EQ(cache->cached_blocks(), 4);
  EXPECT_TRUE(cache->allocate().ok());
  EXPECT_EQ(cache->lookup(key(0)), -1);
}

TEST(KvCache, TrimGivesBackWhatNobodyNeededSinceTheLastOne) {
  auto cache = make_cache(8);
  std::vector<KvCache::BlockId> ids;
  for (int i = 0; i < 8; ++i) ids.push_back(*cache->allocate());
  for (KvCache::BlockId id : ids) cache->release(id);
  EXPECT_EQ(cache->resident_blocks(), 8);
  EXPECT_EQ(cache->trim(), 0) << "all of them were in use since the last one";
  const auto busy = *cache->allocate();
  const auto other = *cache->allocate();
  cache->release(other);
  EXPECT_EQ(cache->trim(), 6) << "two were needed";
  EXPECT_EQ(cache->resident_blocks(), 2);
  EXPECT_EQ(cache->trim(), 1);
  cache->release(busy);
  EXPECT_EQ(cache->trim(), 0);
  EXPECT_EQ(cache->trim(), 1);
  EXPECT_EQ(cache->resident_blocks(), 0);
  EXPECT_EQ(cache->available_blocks(), 8);
}

TEST(KvCache, TrimmedMemoryIsTheSystemsAgain) {
  // 16,384 blocks of 12 KiB on pages of 4 KiB: 192 MiB, so that what else moves does not count.
  constexpr int64_t kBlocks = 16384;
  ModelConfig config = small_model();
  config.head_dim = config.v_head_dim = 64;
  auto cache = std::move(*KvCache::create(config, {4, kBlocks, true, 0}));
  const int64_t before = testing_support::resident_kib();
  std::vector<KvCache::BlockId> ids;
  for (int64_t i = 0; i < kBlocks; ++i) {
    ids.push_back(*cache->allocate());
    std::fill_n(floats(cache->keys(ids.back(), 0)), cache->block_bytes() / sizeof(float), 1.0f);
  }
  const int64_t full = testing_support::resident_kib();
  for (KvCache::BlockId id : ids) cache->release(id);
  cache->trim();
  EXPECT_EQ(cache->trim(), kBlocks);
  const int64_t after = testing_support::resident_kib();
  const auto pool_kib = static_cast<int64_t>(cache->reserved_bytes() / 1024);
  EXPECT_GE(full - before, pool_kib * 9 / 10);
  EXPECT_GE(full - after, pool_kib * 9 / 10);
}

TEST(KvCache, PublishedBlockInUseIsShared) {
  auto cache = make_cache(2);
  const auto a = *cache->allocate();
  cache->publish(a, key(1));
  EXPECT_EQ(cache->lookup(key(1)), a);
  cache->release(a);
  EXPECT_EQ(cache->available_blocks(), 1) << "the first owner still holds it";
  cache->release(a);
  EXPECT_EQ(cache->available_blocks(), 2);
}

TEST(KvCache, FirstPublisherOfAKeyWins) {
  auto cache = make_cache(2);
  const auto a = *cache->allocate();
  const auto b = *cache->allocate();
  cache->publish(a, key(1));
  cache->publish(b, key(1));
  cache->publish(a, key(2));  // has a key already
  EXPECT_EQ(cache->lookup(key(1)), a);
  EXPECT_EQ(cache->lookup(key(2)), -1);
  cache->release(b);
  EXPECT_EQ(cache->available_blocks(), 1);
}

TEST(KvCache, WithoutPrefixCacheNothingIsFound) {
  auto cache = make_cache(1, false);
  const auto a = *cache->allocate();
  cache->publish(a, key(1));
  EXPECT_EQ(cache->lookup(key(1)), -1);
}

TEST(KvCache, ForgetAllDropsTheIndexButNotBlocksInUse) {
  auto cache = make_cache(3);
  const auto used = *cache->allocate();
  const auto idle = *cache->allocate();
  cache->publish(used, key(1));
  cache->publish(idle, key(2));
  cache->release(idle);
  cache->forget_all();
  EXPECT_EQ(cache->lookup(key(1)), -1);
  EXPECT_EQ(cache->lookup(key(2)), -1);
  EXPECT_EQ(cache->available_blocks(), 2);
  cache->release(used);
  EXPECT_EQ(cache->available_blocks(), 3);
}

TEST(KvCache, ChainKeysDifferInScopeOrderAndHistory) {
  const std::vector<int32_t> a = {1, 2, 3, 4};
  const std::vector<int32_t> b = {1, 2, 4, 3};
  const auto chain = [](std::string_view parent, const std::vector<int32_t>& tokens) {
    return KvCache::chain_key(parent, tokens.data(), static_cast<int64_t>(tokens.size()));
  };
  std::set<std::string> keys = {chain("scope1", a),           chain("scope2", a),
                                chain("scope1", b),           chain(chain("scope1", a), b),
                                chain(chain("scope1", b), a), chain("scope1", {1, 2, 3})};
  EXPECT_EQ(keys.size(), 6u);
  EXPECT_EQ(chain("scope1", a), chain("scope1", a));
}

TEST(KvCache, ImpossibleSizesAreRefused) {
  EXPECT_EQ(KvCache::create(small_model(), {16, 0, true, 0}).status().code(),
            Code::kInvalidArgument);
  EXPECT_EQ(KvCache::create(small_model(), {0, 4, true, 0}).status().code(),
            Code::kInvalidArgument);
  ModelConfig huge = small_model();
  huge.num_layers = 4096;
  huge.num_kv_heads = 4096;
  huge.head_dim = 4096;
  huge.v_head_dim = 4096;
  EXPECT_EQ(KvCache::create(huge, {4096, 2147483647, true, 0}).status().code(),
            Code::kResourceExhausted);
}

TEST(KvSequence, ReservesWholeBlocksOrNothing) {
  auto cache = make_cache(4);
  KvSequence first(cache.get());
  ASSERT_TRUE(first.reserve(5).ok());  // two blocks of 4
  EXPECT_EQ(first.blocks().size(), 2u);
  ASSERT_TRUE(first.reserve(8).ok());
  EXPECT_EQ(first.blocks().size(), 2u);
  {
    KvSequence second(cache.get());
    ASSERT_TRUE(second.reserve(4).ok());
    EXPECT_FALSE(second.reserve(13).ok());
    EXPECT_EQ(second.blocks().size(), 1u) << "a failed reserve changes nothing";
    EXPECT_EQ(cache->available_blocks(), 1);
  }
  EXPECT_EQ(cache->available_blocks(), 2);
  first.clear();
  EXPECT_EQ(cache->available_blocks(), 4);
}

TEST(KvSequence, ShrinksToWhatPositionsNeed) {
  auto cache = make_cache(4);
  KvSequence sequence(cache.get());
  ASSERT_TRUE(sequence.reserve(13).ok());
  const auto before = sequence.blocks();
  sequence.shrink(13);
  EXPECT_EQ(sequence.blocks(), before);
  sequence.shrink(8);
  EXPECT_EQ(sequence.blocks(), std::vector<KvCache::BlockId>(before.begin(), before.begin() + 2));
  EXPECT_EQ(cache->available_blocks(), 2);
  sequence.shrink(0);
  EXPECT_EQ(cache->available_blocks(), 4);
}

/// Random operations against a model that knows only references and contents.
TEST(KvCache, RandomOperationsKeepTheInvariants) {
  constexpr uint32_t kSeed = 7;
  std::mt19937 random(kSeed);
  auto cache = make_cache(8);
  std::map<KvCache::BlockId, int> refs;
  std::map<KvCache::BlockId, std::string> published;
  int next_key = 0;
  const auto pick = [&] {
    auto it = refs.begin();
    std::advance(it, static_cast<int64_t>(random() % refs.size()));
    return it->first;
  };
  for (int step = 0; step < 20000; ++step) {
    if (random() % 16 == 0) cache->trim();
    ASSERT_LE(cache->resident_blocks(), 8);
    switch (random() % 4) {
      case 0: {
        const auto id = cache->allocate();
        ASSERT_EQ(id.ok(), refs.size() < 8) << "seed " << kSeed << " step " << step;
        if (!id.ok()) break;
        ASSERT_FALSE(refs.contains(*id)) << "a block in use was handed out";
        refs[*id] = 1;
        published.erase(*id);
        floats(cache->keys(*id, 0))[0] = -1.0f;
        break;
      }
      case 1: {
        if (refs.empty()) break;
        const auto id = pick();
        cache->release(id);
        if (--refs[id] == 0) refs.erase(id);
        break;
      }
      case 2: {
        if (refs.empty()) break;
        const auto id = pick();
        if (published.contains(id)) break;
        floats(cache->keys(id, 0))[0] = static_cast<float>(next_key);
        published[id] = std::to_string(next_key);
        cache->publish(id, std::to_string(next_key++));
        break;
      }
      case 3: {
        if (next_key == 0) break;
        const int wanted = next_key - 1 - static_cast<int>(random() % 12) % next_key;
        const auto id = cache->lookup(std::to_string(wanted));
        if (id < 0) break;
        ASSERT_EQ(floats(cache->keys(id, 0))[0], static_cast<float>(wanted))
            << "stale contents found";
        ++refs[id];
        break;
      }
    }
    ASSERT_EQ(cache->available_blocks(), 8 - static_cast<int64_t>(refs.size()));
  }
}

}  // namespace
}  // namespace chimera
