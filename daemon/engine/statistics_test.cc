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

}  // namespace
}  // namespace chimera
