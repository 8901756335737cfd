#include "daemon/engine/statistics.h"

#include <gtest/gtest.h>

namespace chimera {
namespace {

TEST(Percentile, IsAValueOfTheList) {
  EXPECT_EQ(percentile({}, 0.5), 0.0);
  EXPECT_EQ(percentile({7.0f}, 0.99), 7.0);
  std::vector<float> values;
  for (int i = 100; i >= 0; --i) values.push_back(static_cast<float>(i));
  EXPECT_EQ(percentile(values, 0.0), 0.0);
  EXPECT_EQ(percentile(values, 0.5), 50.0);
  EXPECT_EQ(percentile(values, 0.99), 99.0);
  EXPECT_EQ(percentile(values, 1.0), 100.0);
}

TEST(Statistics, AreReadAsOfTheLastTimeTheyWereShown) {
  Statistics statistics;
  statistics.counters().finished = 3;
  statistics.record_step(5.0);
  EXPECT_EQ(statistics.read().finished, 0u);
  EXPECT_EQ(statistics.read().step_ms_p50, 0.0);
  statistics.show(Statistics::Routing::kWhenDue);
  statistics.counters().finished = 4;
  EXPECT_EQ(statistics.read().finished, 3u);
  EXPECT_EQ(statistics.read().step_ms_p50, 5.0);
}

TEST(Latency, BucketsHoldWhatIsNotLonger) {
  using Seconds = std::chrono::duration<double>;
  Latency latency;
  for (const double bound : Latency::kBounds) latency.observe(Seconds(bound));
  latency.observe(Seconds(0.0));
  latency.observe(Seconds(1e6));
  EXPECT_EQ(latency.counts.front(), 2u);
  EXPECT_EQ(latency.counts.back(), 1u);
  for (size_t i = 1; i < Latency::kBounds.size(); ++i) EXPECT_EQ(latency.counts[i], 1u);
  EXPECT_GT(latency.sum, 1e6);
}

TEST(Statistics, PercentilesForgetOldSteps) {
  Statistics statistics;
  const auto steps = [&](size_t n, double ms) {
    for (size_t i = 0; i < n; ++i) statistics.record_step(ms);
    statistics.show(Statistics::Routing::kWhenDue);
  };
  steps(Statistics::kStepWindow, 10.0);
  EXPECT_EQ(statistics.read().step_ms_p50, 10.0);
  steps(Statistics::kStepWindow / 10, 90.0);
  EXPECT_EQ(statistics.read().step_ms_p50, 10.0);
  EXPECT_EQ(statistics.read().step_ms_p99, 90.0);
  steps(Statistics::kStepWindow - 1, 20.0);
  EXPECT_EQ(statistics.read().step_ms_p50, 20.0);
  EXPECT_EQ(statistics.read().step_ms_p99, 20.0) << "what is left of the slow ones is one step";
  steps(1, 20.0);
  EXPECT_EQ(percentile({20.0f}, 1.0), statistics.read().step_ms_p99);
}

// The router's counts are shown at once where an answer or an acknowledgement follows, else rarely.
TEST(Statistics, RoutingIsShownNowOrWhenDue) {
  Statistics statistics;
  statistics.show(Statistics::Routing::kNow);
  statistics.router()->layers.resize(2);
  statistics.show(Statistics::Routing::kWhenDue);
  EXPECT_EQ(statistics.read().router.layers.size(), 0u);
  statistics.show(Statistics::Routing::kNow);
  EXPECT_EQ(statistics.read().router.layers.size(), 2u);
}

TEST(Statistics, RoutingAddsUpOverWhatIsShown) {
  Statistics statistics;
  const auto count = [&](const std::string& module, uint64_t tokens) {
    RouterStats& router = *statistics.router();
    router.layers.resize(1);
    router.layers[0].add_module(module, std::vector<uint64_t>{tokens, 1}, 0.5);
    router.layers[0].tokens += tokens;
    statistics.show(Statistics::Routing::kNow);
  };
  count("a", 3);
  count("a", 4);
  count("b", 2);
  const RouterStats::Layer layer = statistics.read().router.layers.at(0);
  EXPECT_EQ(layer.expert_tokens.at("a"), (std::vector<uint64_t>{7, 2}));
  EXPECT_EQ(layer.mass.at("a"), 1.0);
  EXPECT_EQ(layer.expert_tokens.at("b"), (std::vector<uint64_t>{2, 1}));
  EXPECT_EQ(layer.tokens, 9u);
}

TEST(Statistics, ModulesThatComeAndGoDoNotAddUp) {
  Statistics statistics;
  const auto names = [&] {
    std::set<std::string> out;
    const RouterStats::Layer layer = statistics.read().router.layers.at(0);
    for (const auto& [name, mass] : layer.mass) out.insert(name);
    return out;
  };
  for (int i = 0; i < 1000; ++i) {
    const std::string name = "module" + std::to_string(i);
    RouterStats& router = *statistics.router();
    router.layers.resize(1);
    for (const std::string& one : {std::string("backbone"), name}) {
      router.layers[0].add_module(one, std::vector<uint64_t>{1}, 0.5);
    }
    ++router.layers[0].tokens;
    statistics.show(Statistics::Routing::kNow);
    statistics.keep_modules({"backbone", name});
  }
  EXPECT_EQ(names().size(), Statistics::kGoneModules + 2);
  EXPECT_TRUE(names().contains("module999"));
  EXPECT_TRUE(names().contains("module998")) << "what left last is still told of";
  EXPECT_FALSE(names().contains("module1"));
  EXPECT_EQ(statistics.read().router.layers[0].tokens, 1000u);
  // One that comes back is not forgotten as the oldest of those gone.
  statistics.keep_modules({"backbone", "module968"});
  statistics.keep_modules({"backbone", "module968"});
  EXPECT_TRUE(names().contains("module968"));
}

}  // namespace
}  // namespace chimera
