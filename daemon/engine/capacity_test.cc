// The engine within its cache: less than all could need, one request at a time, nothing to do.
#include <gtest/gtest.h>

#include <algorithm>

#include "daemon/engine/engine.h"
#include "daemon/engine/testing.h"

namespace chimera {
namespace {

using namespace testing_support;

class CapacityTest : public testing::Test {
 protected:
  void SetUp() override {
    CHIMERA_NEEDS_GOLDEN();
    world_ = std::make_unique<World>();
    table_ = world_->table(1, {world_->module("a"), world_->module("b")});
    options_.max_sequences = 8;
    options_.max_context = 128;
    options_.max_queue = 256;
  }
  std::unique_ptr<Engine> make(std::optional<uint64_t> kv_bytes) {
    options_.kv_bytes = kv_bytes;
    return must(Engine::create(world_->backbone, nullptr, table_, options_));
  }
  uint64_t one_context() const { return least_kv_bytes(world_->config, options_); }
  /// Waits for a state of the statistics.
  static bool eventually(const Engine& engine, const std::function<bool(const EngineStats&)>& is) {
    for (int i = 0; i < 6000; ++i) {
      if (is(engine.stats())) return true;
      std::this_thread::sleep_for(10ms);
    }
    return false;
  }

  std::unique_ptr<World> world_;
  std::shared_ptr<const RoutingTable> table_;
  EngineOptions options_;
};

TEST_F(CapacityTest, ACacheForOneContextServesEightStreamsWithTheSameTokens) {
  std::vector<Stream> whole, tight;
  std::vector<std::vector<float>> whole_scores, tight_scores;
  uint64_t paused = 0;
  for (const bool is_tight : {false, true}) {
    auto engine = make(is_tight ? std::optional(one_context()) : std::nullopt);
    std::vector<std::shared_ptr<Collector>> sinks, scores;
    for (int i = 0; i < 12; ++i) {
      EngineRequest request = greedy(prompt(i, 10), 60);
      // Not only the likeliest: the sampler draws by the number of the token.
      if (i % 2 == 1) request.sampling.temperature = 1.0f;
      request.sampling.seed = 7;
      sinks.push_back(submit(*engine, request));
      EngineRequest score = greedy(prompt(i + 50, 70), 1);
      score.kind = EngineRequest::Kind::kScore;
      scores.push_back(submit(*engine, score));
    }
    for (const auto& sink : sinks) {
      (is_tight ? tight : whole).push_back(stream_of(sink->done()));
      EXPECT_EQ(sink->tokens().size(), 60u) << "no token is sent twice";
      EXPECT_EQ(sink->terminals(), 1);
    }
    for (const auto& sink : scores)
      (is_tight ? tight_scores : whole_scores).push_back(sink->done().logprobs);
    const EngineStats stats = engine->stats();
    EXPECT_LE(stats.kv_bytes_resident, stats.kv_bytes_budget);
    if (is_tight) {
      paused = stats.paused;
      EXPECT_EQ(stats.kv_bytes_budget, one_context());
    } else {
      EXPECT_EQ(stats.paused, 0u);
      EXPECT_EQ(stats.kv_bytes_budget, full_kv_bytes(world_->config, options_));
    }
  }
  EXPECT_GT(paused, 0u) << "the cache was not short";
  EXPECT_EQ(tight, whole);
  EXPECT_EQ(tight_scores, whole_scores);
}

TEST_F(CapacityTest, TwoBytesANumberKeepStreamsThroughPausesAndPrefixes) {
  const uint64_t wide = one_context();
  for (const KvFormat format : {KvFormat::kF16, KvFormat::kBF16}) {
    options_.kv_format = format;
    EXPECT_EQ(one_context(), wide / 2);
    std::vector<Stream> streams[2];
    uint64_t paused = 0;
    for (const bool is_tight : {false, true}) {
      auto engine = make(is_tight ? std::optional(one_context()) : std::nullopt);
      std::vector<std::shared_ptr<Collector>> sinks;
      for (int i = 0; i < 8; ++i) sinks.push_back(submit(*engine, greedy(prompt(i, 10), 60)));
      for (const auto& sink : sinks) streams[is_tight].push_back(stream_of(sink->done()));
      if (is_tight) paused = engine->stats().paused;
      // What the prefix of an earlier one holds gives the same bits as computing it.
      const DoneEvent first = submit(*engine, greedy(prompt(90, 70), 5))->done();
      const DoneEvent again = submit(*engine, greedy(prompt(90, 70), 5))->done();
      EXPECT_GT(again.cached_tokens, 0);
      EXPECT_EQ(stream_of(again), stream_of(first));
    }
    EXPECT_GT(paused, 0u) << "the cache was not short";
    EXPECT_EQ(streams[0], streams[1]);
  }
}

TEST_F(CapacityTest, LessThanOneContextIsRefused) {
  options_.kv_bytes = one_context() - 1;
  const auto engine = Engine::create(world_->backbone, nullptr, table_, options_);
  ASSERT_FALSE(engine.ok());
  EXPECT_EQ(engine.status().code(), Code::kResourceExhausted);
  EXPECT_NE(engine.status().message().find("expected 128, one context"), std::string::npos)
      << engine.status().message();
}

TEST_F(CapacityTest, OneClientAtATimeDoesNotFillTheCache) {
  auto engine = make(std::nullopt);
  uint64_t most = 0;
  for (int i = 0; i < 60; ++i) {
    submit(*engine, greedy(prompt(i, 90), 2))->done();
    most = std::max(most, engine->stats().kv_bytes_resident);
  }
  // A quarter for prefixes, and one context that runs.
  EXPECT_LE(most, full_kv_bytes(world_->config, options_) / 4 + one_context());
}

TEST_F(CapacityTest, IdleMemoryGoesBackAndPrefixesStay) {
  options_.trim_interval = 20ms;
  auto engine = make(std::nullopt);
  std::vector<std::shared_ptr<Collector>> sinks;
  for (int i = 0; i < 8; ++i) sinks.push_back(submit(*engine, greedy(prompt(i, 100), 20)));
  for (const auto& sink : sinks) sink->done();
  EXPECT_TRUE(eventually(*engine, [](const EngineStats& stats) {
    return stats.kv_bytes_used == 0 && stats.kv_bytes_resident == stats.kv_bytes_cached;
  }));
  EXPECT_GT(engine->stats().kv_bytes_cached, 0u);
  EXPECT_EQ(submit(*engine, greedy(prompt(7, 100), 1))->done().cached_tokens, 96);
}

}  // namespace
}  // namespace chimera
