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
  EXPECT_EQ(table->all(), mask_of(0b1111));
  EXPECT_EQ(table->module_index("replace"), 2);
  EXPECT_EQ(table->module_index("nobody"), -1);
  const auto active = [&](uint64_t mask) {
    return table->layout()->active(mask_of(mask))->layers[1].candidates;
  };
  // Of every slot the last permitted candidate.
  EXPECT_EQ(active(0b1111), (std::vector<int32_t>{2, 3, 4, 5, 7, 8}));
  EXPECT_EQ(active(0b0111), (std::vector<int32_t>{2, 3, 4, 5, 6, 7}));
  EXPECT_EQ(active(0b1001), (std::vector<int32_t>{1, 2, 3, 8}));
  EXPECT_EQ(active(0b0001), (std::vector<int32_t>{0, 1, 2, 3}));
}

TEST(RoutingTable, ReplacingExpertWithoutRowsIsScoredByTheCheckpoint) {
  Models m;
  for (auto& [index, layer] : m.later->layers) layer.gate_weight.clear();
  const auto table = make_table(m.config, m.base, {m.replace, m.later});
  ASSERT_NE(table, nullptr);
  const LayerTable& layer = table->layers()[0];
  // In their own memory: whatever the size, a table copies none of it.
  const auto hidden = static_cast<size_t>(m.config.hidden_size);
  EXPECT_EQ(layer.gate_row(6), m.base->layers[0].gate_weight.data());
  EXPECT_EQ(layer.gate_row(5), m.replace->layers[0].gate_weight.data() + hidden);
}

TEST(RoutingTable, BiasesAddUp) {
  Models m;
  m.append->layers[0].gate_bias = {0.5f, -0.5f};
  Composition composition;
  composition.modules = {entry("append", 0.25f)};
  const auto table = make_table(m.config, m.base, {m.append}, composition);
  ASSERT_NE(table, nullptr);
  const auto bias = [&](size_t layer) {
    std::vector<float> all;
    for (size_t c = 0; c < 6; ++c) all.push_back(table->bias(layer, c));
    return all;
  };
  EXPECT_EQ(bias(0), (std::vector<float>{0, 0, 0, 0, 0.75f, -0.25f}));
  EXPECT_EQ(bias(1), (std::vector<float>{0, 0, 0, 0, 0.25f, 0.25f}));
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
  EXPECT_TRUE(changed([](Composition& o) { o.modules[0].lambda = {{"a", 0.5}, {"b", 0.5}}; }));
  EXPECT_TRUE(changed([](Composition& o) { o.modules[0].precision = Precision::kQ8; }));
  EXPECT_FALSE(changed([](Composition& o) { o.modules[2].precision = Precision::kQ8; }));
  EXPECT_TRUE(changed([](Composition& o) { o.modules[0].weight = 1.0; }));
  Composition q8 = c, q4 = c;
  q8.modules[0].precision = Precision::kQ8;
  q4.modules[0].precision = Precision::kQ4;
  EXPECT_NE(q8.digest(), q4.digest());
  EXPECT_FALSE(same_outputs(q8.modules[0], q4.modules[0]));
  q4 = q8;
  q4.modules[0].weight = 2.0;
  EXPECT_FALSE(same_outputs(q8.modules[0], q4.modules[0]));
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
  EXPECT_EQ(both->scope(mask_of(0b011), {}), one->scope(mask_of(0b11), {}));
  EXPECT_EQ(both->scope(mask_of(0b011), std::vector<float>{0.0f, 0.0f, 9.0f}),
            one->scope(mask_of(0b11), {}));
  EXPECT_NE(both->scope(mask_of(0b111), {}), one->scope(mask_of(0b11), {}));
  EXPECT_NE(one->scope(mask_of(0b01), {}), one->scope(mask_of(0b11), {}));
  EXPECT_NE(one->scope(mask_of(0b11), std::vector<float>{0.0f, 0.5f}),
            one->scope(mask_of(0b11), {}));
  EXPECT_NE(with_bias->scope(mask_of(0b11), {}), one->scope(mask_of(0b11), {}));
  EXPECT_NE(with_top_k->scope(mask_of(0b11), {}), one->scope(mask_of(0b11), {}));
  Composition packed;
  packed.modules = {entry("append")};
  packed.modules[0].precision = Precision::kQ8;
  const auto with_precision = make_table(m.config, m.base, {m.append}, packed);
  EXPECT_NE(with_precision->scope(mask_of(0b11), {}), one->scope(mask_of(0b11), {}));
  EXPECT_EQ(with_precision->scope(mask_of(0b01), {}), one->scope(mask_of(0b01), {}));
  EXPECT_FALSE(with_precision->same_scope(*one, mask_of(0b11)));
  packed.modules[0].weight = 2.0;
  const auto with_weight = make_table(m.config, m.base, {m.append}, packed);
  EXPECT_NE(with_weight->scope(mask_of(0b11), {}), with_precision->scope(mask_of(0b11), {}));
  EXPECT_EQ(with_weight->scope(mask_of(0b01), {}), one->scope(mask_of(0b01), {}));
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
  EXPECT_EQ(table->top_k(mask_of(0b011)), 2);
  EXPECT_EQ(table->scope(mask_of(0b011), {}),
            make_table(m.config, m.base, {m.replace})->scope(mask_of(0b11), {}));

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

TEST(RoutingTable, HasAsManyModulesAsACompositionMay) {
  Models m;
  Composition c;
  std::vector<std::shared_ptr<const Module>> modules;
  const auto one = random_module(m.rng, m.config, "m", 1, Attach::kAppend);
  for (int i = 0; i < kMaxModules; ++i) {
    auto module = std::make_shared<Module>(*one);
    module->manifest.name = "m" + std::to_string(i);
    c.modules.push_back(entry(module->name()));
    modules.push_back(std::move(module));
  }
  const RoutingTableBuilder builder(m.config, m.base);
  const auto full = builder.build(7, c, modules);
  ASSERT_TRUE(full.ok()) << full.status().to_string();
  EXPECT_EQ((*full)->epoch(), 7u);
  EXPECT_EQ((*full)->all().size(), static_cast<size_t>(kMaxModules) + 1);
  const auto last = static_cast<size_t>((*full)->module_index("m4095"));
  const auto few = (*full)->layout()->active(ModuleMask{0, 65, last});
  EXPECT_EQ(few->layers[0].candidates, (std::vector<int32_t>{0, 1, 2, 3, 68, 4 + kMaxModules - 1}));
  modules.push_back(random_module(m.rng, m.config, "more", 1, Attach::kReplace));
  c.modules.push_back(entry("more"));
  EXPECT_EQ(builder.build(8, c, modules).status().code(), Code::kResourceExhausted);
}

TEST(RoutingTable, TablesOfTheSameModulesShareTheirLayout) {
  Models m;
  const RoutingTableBuilder builder(m.config, m.base);
  Composition c;
  c.modules = {entry("append"), entry("later", 0.5f)};
  const std::vector<std::shared_ptr<const Module>> modules{m.append, m.later};
  const auto table = *builder.build(1, c, modules);
  c.modules[1].bias = 0.75f;
  const auto biased = *builder.build(2, c, modules);
  EXPECT_EQ(biased->layout(), table->layout());
  EXPECT_TRUE(table->same_scope(*biased, mask_of(0b011)));
  EXPECT_EQ(table->scope(mask_of(0b011), {}), biased->scope(mask_of(0b011), {}));
  EXPECT_FALSE(table->same_scope(*biased, mask_of(0b111)));
  EXPECT_NE(table->scope(mask_of(0b111), {}), biased->scope(mask_of(0b111), {}));
  c.modules[1].enabled = false;
  const auto without = *builder.build(3, c, modules);
  EXPECT_NE(without->layout(), table->layout());
  c.modules[1].enabled = true;
  EXPECT_EQ((*builder.build(4, c, modules))->layout(), table->layout()) << "back on";
  c.top_k = 3;
  const auto wider = *builder.build(5, c, modules);
  EXPECT_EQ(wider->layout(), table->layout());
  EXPECT_FALSE(biased->same_scope(*wider, mask_of(0b001)));

  const auto view = *make_route_view(table, mask_of(0b011), {});
  const auto moved = same_view(*view, biased);
  ASSERT_NE(moved, nullptr);
  EXPECT_EQ(moved->table, biased);
  EXPECT_EQ(moved->active, view->active);
  EXPECT_EQ(same_view(**make_route_view(table, table->all(), {}), biased), nullptr);
  EXPECT_EQ(same_view(*view, without), nullptr) << "another layout says nothing";
}

TEST(RoutingTable, GateRowsThatAreCopiedCountForAsLongAsTheyAreThere) {
  std::mt19937 rng(11);
  const ModelConfig config = small_config(4, 2, true);
  const auto base = random_module(rng, config, "backbone", 4, Attach::kReplace);
  uint64_t counted = 0;
  const RoutingTableBuilder builder(config, base, [&](uint64_t bytes) -> std::shared_ptr<void> {
    counted += bytes;
    return {&counted, [bytes](uint64_t* sum) { *sum -= bytes; }};
  });
  Composition composition;
  std::vector<std::shared_ptr<const Module>> modules;
  const auto add = [&](int count) {
    for (int i = 0; i < count; ++i) {
      const std::string name = "m" + std::to_string(modules.size());
      modules.push_back(random_module(rng, config, name, 1, Attach::kAppend));
      composition.modules.push_back(entry(name));
    }
  };
  add(3);
  auto few = *builder.build(1, composition, modules);
  EXPECT_EQ(counted, 0u) << "few stay where their modules have them";
  EXPECT_EQ(few->layout()->gathered_bytes(), 0u);
  add(40);
  auto many = *builder.build(2, composition, modules);
  EXPECT_EQ(counted, uint64_t{2} * (4 + 43) * 32 * sizeof(float));
  composition.modules[5].bias = 1.0f;
  auto biased = *builder.build(3, composition, modules);
  EXPECT_EQ(counted, many->layout()->gathered_bytes()) << "tables of the same modules share them";
  many = nullptr;
  EXPECT_GT(counted, 0u);
  biased = nullptr;
  EXPECT_EQ(counted, 0u);
}

TEST(ModuleMask, IsASetOfAnySize) {
  ModuleMask mask{1, 63, 64, 1000};
  EXPECT_EQ(mask.size(), 4u);
  for (const size_t member : {1u, 63u, 64u, 1000u}) EXPECT_TRUE(mask.has(member)) << member;
  for (const size_t other : {0u, 62u, 65u, 999u, 1001u, 100000u}) {
    EXPECT_FALSE(mask.has(other)) << other;
  }
  std::vector<size_t> members;
  mask.for_each([&](size_t member) { members.push_back(member); });
  EXPECT_EQ(members, (std::vector<size_t>{1, 63, 64, 1000}));
  // What was taken out leaves no trace.
  EXPECT_EQ(mask.remove(1000), (ModuleMask{1, 63, 64}));
  EXPECT_EQ((mask & ModuleMask{0, 63, 4000}), ModuleMask{63});
  EXPECT_EQ((ModuleMask{64} & ModuleMask{1}), ModuleMask{});
  EXPECT_TRUE((ModuleMask{64} & ModuleMask{1}).empty());
  for (const size_t n : {0u, 1u, 63u, 64u, 65u, 128u, 1025u}) {
    const ModuleMask all = ModuleMask::first(n);
    EXPECT_EQ(all.size(), n);
    EXPECT_FALSE(all.has(n)) << n;
  }
}

}  // namespace
}  // namespace chimera
