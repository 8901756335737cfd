#include "daemon/server/answers/routing_window.h"

#include <gtest/gtest.h>

namespace chimera {
namespace {

RouterStats counted(uint64_t tokens, double entropy, std::vector<uint64_t> experts, double mass) {
  RouterStats out;
  out.layers.resize(1);
  out.layers[0].tokens = tokens;
  out.layers[0].entropy_sum = entropy;
  out.layers[0].expert_tokens["legal"] = std::move(experts);
  out.layers[0].mass["legal"] = mass;
  return out;
}

TEST(RoutingWindow, TellsWhatCameSinceTheReset) {
  RoutingWindow window;
  EXPECT_EQ(window.since_reset(counted(10, 2.0, {4, 6}, 5.0)).layers[0].tokens, 10u);
  window.reset(counted(10, 2.0, {4, 6}, 5.0));
  RouterStats total = counted(13, 2.5, {4, 9}, 6.5);
  total.layers[0].expert_tokens["bio"] = {1};
  total.layers[0].mass["bio"] = 0.5;
  const RouterStats::Layer layer = window.since_reset(total).layers[0];
  EXPECT_EQ(layer.tokens, 3u);
  EXPECT_EQ(layer.entropy_sum, 0.5);
  EXPECT_EQ(layer.expert_tokens.at("legal"), (std::vector<uint64_t>{0, 3}));
  EXPECT_EQ(layer.mass.at("legal"), 1.5);
  EXPECT_EQ(layer.expert_tokens.at("bio"), (std::vector<uint64_t>{1}));
  EXPECT_EQ(layer.mass.at("bio"), 0.5);
}

TEST(RoutingWindow, ACounterThatBeganAnewIsTakenAsItIs) {
  RoutingWindow window;
  window.reset(counted(10, 2.0, {4, 6}, 5.0));
  const RouterStats::Layer layer = window.since_reset(counted(11, 2.25, {1}, 1.0)).layers[0];
  EXPECT_EQ(layer.expert_tokens.at("legal"), (std::vector<uint64_t>{1}));
  EXPECT_EQ(layer.mass.at("legal"), 1.0);
  EXPECT_EQ(window.since().size(), std::string("2024-01-02T03:04:05Z").size());
}

}  // namespace
}  // namespace chimera
