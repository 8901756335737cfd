// Compositions and the tables compiled from them: slots, masks, scopes, refusals.
#include "router/routing_table.h"

#include <gtest/gtest.h>

#include <functional>

#include "router/testing.h"

namespace chimera {
namespace {

using namespace chimera::testing;

struct Models {
  Models() : rng(5), config(small_config(4, 2, true)) {
    base = random_module(rng, config, "backbone", 4, Attach::kAppend);
    append = random_module(rng, config, "append", 2, Attach::kAppend);
    replace = random_module(rng, config, "replace", 2, Attach::kReplace);
    later = random_module(rng, config, "later", 1, Attach::kReplace);
  }
  std::mt19937 rng;
  ModelConfig config;
  std::shared_ptr<Module> base, append, replace, later;
};

TEST(RoutingTable, CandidatesSlotsAndMasks) {
  Models m;
  const auto table = make_table(m.config, m.base, {m.append, m.replace, m.later});
  ASSERT_NE(table, nullptr);
  const LayerTable& layer = table->layers()[1];
  EXPECT_EQ(layer.candidates, 9);
  EXPECT_EQ(layer.slot, (std::vector<int32_t>{0, 1, 2, 3, 4, 5, 0, 1, 0}));
  EXPECT_EQ(layer.owner, (std::vector<int32_t>{0, 0, 0, 0, 1, 1, 2, 2, 3}));
  EXPECT_EQ(layer.index, (std::vector<int32_t>{0, 1, 2, 3, 0, 1, 0, 1, 0}));
  EXPECT_EQ(table->all(), 0b1111u);
  EXPECT_EQ(table->module_index("replace"), 2);
  EXPECT_EQ(table->module_index("nobody"), -1);
  const auto active = [&](ModuleMask mask) { return table->active(mask)[1]; };
  // Of every slot the last permitted candidate.
  EXPECT_EQ(active(0b1111), (std::vector<uint8_t>{0, 0, 1, 1, 1, 1, 0, 1, 1}));
  EXPECT_EQ(active(0b0111), (std::vector<uint8_t>{0, 0, 1, 1, 1, 1, 1, 1, 0}));
  EXPECT_EQ(active(0b1001), (std::vector<uint8_t>{0, 1, 1, 1, 0, 0, 0, 0, 1}));
  EXPECT_EQ(active(0), (std::vector<uint8_t>{1, 1, 1, 1, 0, 0, 0, 0, 0}));
}

TEST(RoutingTable, ReplacingExpertWithoutRowsIsScoredByTheCheckpoint) {
  Models m;
  for (auto& [index, layer] : m.later->layers) layer.gate_weight.clear();
  const auto table = make_table(m.config, m.base, {m.replace, m.later});
  ASSERT_NE(table, nullptr);
  const LayerTable& layer = table->layers()[0];
  const auto* gate = static_cast<const float*>(layer.gate.data);
  const auto hidden = static_cast<size_t>(m.config.hidden_size);
  for (size_t i = 0; i < hidden; ++i) {
    EXPECT_EQ(gate[6 * hidden + i], m.base->layers[0].gate_weight[i]);
    EXPECT_EQ(gate[4 * hidden + i], m.replace->layers[0].gate_weight[i]);
  }
}

TEST(RoutingTable, BiasesAddUp) {
  Models m;
  m.append->layers[0].gate_bias = {0.5f, -0.5f};
  Composition composition;
  composition.modules = {entry("append", 0.25f)};
  const auto table = make_table(m.config, m.base, {m.append}, composition);
  ASSERT_NE(table, nullptr);
  EXPECT_EQ(table->layers()[0].bias, (std::vector<float>{0, 0, 0, 0, 0.75f, -0.25f}));
  EXPECT_EQ(table->layers()[1].bias, (std::vector<float>{0, 0, 0, 0, 0.25f, 0.25f}));
}

TEST(Composition, DigestCoversWhatDecidesOutputs) {
  Composition c;
  c.backbone_fingerprint = "sha256:x";
  c.modules = {entry("a", 0.1f), entry("b"), entry("off", 0.0f, false)};
  const std::string digest = c.digest();
  EXPECT_TRUE(digest.starts_with("sha256:"));
  const auto changed = [&](const std::function<void(Composition&)>& change) {
    Composition other = c;
    change(other);
    return other.digest() != digest;
  };
  EXPECT_TRUE(changed([](Composition& o) { o.backbone_fingerprint = "sha256:y"; }));
  EXPECT_TRUE(changed([](Composition& o) { o.top_k = 2; }));
  EXPECT_TRUE(changed([](Composition& o) { o.modules[0].bias = 0.2f; }));
  EXPECT_TRUE(changed([](Composition& o) { o.modules[1].digest = "sha256:other"; }));
  EXPECT_TRUE(changed([](Composition& o) { o.modules[2].enabled = true; }));
  EXPECT_TRUE(changed([](Composition& o) { std::swap(o.modules[0], o.modules[1]); }));
  EXPECT_FALSE(changed([](Composition& o) { o.modules[0].path = "/elsewhere"; }));
  EXPECT_FALSE(changed([](Composition& o) { o.modules[1].bias = -0.0f; }));
  EXPECT_FALSE(changed([](Composition& o) { o.modules.pop_back(); }));
}

TEST(RoutingTable, ScopeKnowsWhatTheMaskLetsThrough) {
  Models m;
  const auto both = make_table(m.config, m.base, {m.append, m.replace});
  const auto one = make_table(m.config, m.base, {m.append});
  Composition biased;
  biased.modules = {entry("append", 1.0f)};
  const auto with_bias = make_table(m.config, m.base, {m.append}, biased);
  Composition wider;
  wider.top_k = 3;
  wider.modules = {entry("append")};
  const auto with_top_k = make_table(m.config, m.base, {m.append}, wider);
  EXPECT_EQ(both->scope(0b011, {}), one->scope(0b11, {}));
  EXPECT_EQ(both->scope(0b011, std::vector<float>{0.0f, 0.0f, 9.0f}), one->scope(0b11, {}));
  EXPECT_NE(both->scope(0b111, {}), one->scope(0b11, {}));
  EXPECT_NE(one->scope(0b01, {}), one->scope(0b11, {}));
  EXPECT_NE(one->scope(0b11, std::vector<float>{0.0f, 0.5f}), one->scope(0b11, {}));
  EXPECT_NE(with_bias->scope(0b11, {}), one->scope(0b11, {}));
  EXPECT_NE(with_top_k->scope(0b11, {}), one->scope(0b11, {}));
}

TEST(TopK, IsTheCompositionsElseTheModulesElseTheCheckpoints) {
  Models m;  // the checkpoint says 2
  m.append->manifest.top_k = 3;
  EXPECT_EQ(make_table(m.config, m.base, {})->top_k(), 2);
  EXPECT_EQ(make_table(m.config, m.base, {m.replace})->top_k(), 2) << "it states none";
  const auto table = make_table(m.config, m.base, {m.replace, m.append});
  EXPECT_EQ(table->top_k(), 3);
  EXPECT_TRUE(table->notes().empty());
  // A masked module has no say: as if it had never been loaded.
  EXPECT_EQ(table->top_k(0b011), 2);
  EXPECT_EQ(table->scope(0b011, {}), make_table(m.config, m.base, {m.replace})->scope(0b11, {}));

  m.later->manifest.original_top_k = 4;  // as `split` has recorded it
  const auto disagreeing = make_table(m.config, m.base, {m.append, m.later});
  EXPECT_EQ(disagreeing->top_k(), 4);
  ASSERT_EQ(disagreeing->notes().size(), 1u);
  EXPECT_NE(disagreeing->notes()[0].find("module append was fitted for top_k 3"),
            std::string::npos);

  Composition stated;
  stated.top_k = 1;
  stated.modules = {entry("append"), entry("later", 0.0f, false)};
  const auto table_of_one = make_table(m.config, m.base, {m.append, m.later}, stated);
  EXPECT_EQ(table_of_one->top_k(), 1);
  EXPECT_EQ(
      table_of_one->notes(),
      std::vector<std::string>{"module append was fitted for top_k 3, but the composition says 1"});
}

TEST(RoutingTable, RefusalsNameTheModule) {
  Models m;
  const RoutingTableBuilder builder(m.config, m.base);
  using Modules = std::vector<std::shared_ptr<const Module>>;
  const auto refusal = [&](const Composition& c, const Modules& modules) {
    return builder.build(1, c, modules).status();
  };
  Composition c;
  c.modules = {entry("append"), entry("append")};
  EXPECT_EQ(refusal(c, {m.append, m.append}).code(), Code::kAlreadyExists);
  c.modules = {entry("append", NAN)};
  EXPECT_EQ(refusal(c, {m.append}).code(), Code::kInvalidArgument);
  c.modules = {entry("append")};
  EXPECT_EQ(refusal(c, {nullptr}).code(), Code::kInternal);
  EXPECT_EQ(refusal(c, {}).code(), Code::kInternal);
  for (const int64_t top_k : {int64_t{0}, int64_t{-1}, kMaxTopK + 1}) {
    c.top_k = top_k;
    EXPECT_EQ(refusal(c, {m.append}).code(), Code::kInvalidArgument) << top_k;
  }
  c.top_k = 50;  // more than there are: all that are permitted are used
  EXPECT_TRUE(refusal(c, {m.append}).ok());
  c.modules = {entry("append", 0.0f, false)};
  EXPECT_TRUE(refusal(c, {nullptr}).ok());

  m.replace->layers[1].slots[1] = 4;
  Composition r;
  r.modules = {entry("replace")};
  const Status slot = refusal(r, {m.replace});
  EXPECT_EQ(slot.code(), Code::kFailedPrecondition);
  EXPECT_EQ(slot.message(),
            "module replace, layer 1: replaces slot 4 (expected 0 to 3, the "
            "backbone's experts)");
  m.append->layers[9] = m.append->layers[0];
  Composition a;
  a.modules = {entry("append")};
  EXPECT_EQ(refusal(a, {m.append}).code(), Code::kFailedPrecondition);
}

TEST(RoutingTable, AtMostSixtyThreeModules) {
  Models m;
  Composition c;
  std::vector<std::shared_ptr<const Module>> modules;
  for (int i = 0; i < kMaxModules; ++i) {
    const std::string name = "m" + std::to_string(i);
    modules.push_back(random_module(m.rng, m.config, name, 1, Attach::kReplace));
    c.modules.push_back(entry(name));
  }
  const auto full = RoutingTableBuilder(m.config, m.base).build(7, c, modules);
  ASSERT_TRUE(full.ok()) << full.status().to_string();
  EXPECT_EQ((*full)->epoch(), 7u);
  EXPECT_EQ((*full)->all(), ~ModuleMask{0});
  EXPECT_EQ((*full)->active(~ModuleMask{0})[0].back(), 1);
  modules.push_back(random_module(m.rng, m.config, "more", 1, Attach::kReplace));
  c.modules.push_back(entry("more"));
  EXPECT_EQ(RoutingTableBuilder(m.config, m.base).build(8, c, modules).status().code(),
            Code::kResourceExhausted);
}

}  // namespace
}  // namespace chimera
