// Bundles through the real router: what runs is, bit for bit, what `graft` writes and a checkpoint
// loader loads; one that a request does not use was never loaded.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <future>

#include "backbone/checkpoint/check.h"
#include "experts/bundle/testing.h"
#include "experts/offline/cut.h"
#include "router/golden_testing.h"

namespace chimera {
namespace {

using namespace chimera::testing;
using ::testing::HasSubstr;

const std::vector<int32_t> kTokens{5, 17, 59, 3, 42, 33, 7, 61, 31};

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return !a.empty() && a.size() == b.size() &&
         std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

bool is_norm_or_attention(const NeededTensor& t) {
  return t.name.find("self_attn") != std::string::npos || t.shape.size() == 1;
}

struct Case {
  const char* dir;
  Precision precision;
};

/// A checkpoint cut into a backbone and the modules "one", "two" and "three" of an expert each.
class Bundles : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    const std::string dir = GetParam().dir;
    const std::string from =
        (dir.starts_with("deepseek_v2") ? own_golden_dir() : golden_dir()) + "/" + dir;
    if (!std::filesystem::exists(from)) GTEST_SKIP() << from << " is not there";
    const auto whole = Checkpoint::open(from, Residency::kMapped);
    ASSERT_TRUE(whole.ok()) << whole.status().to_string();
    const auto config = read_model_config(*whole);
    ASSERT_TRUE(config.ok()) << config.status().to_string();
    const int64_t last = config->num_experts - 1;
    SplitOptions split;
    split.checkpoint_dir = from;
    split.backbone_out = dir_ / "backbone";
    split.modules_out = dir_ / "modules";
    // In their order of before: sums are in the order of the experts.
    split.modules = {
        {"one", {{-1, {last - 2}}}}, {"two", {{-1, {last - 1}}}}, {"three", {{-1, {last}}}}};
    const auto cut = split_checkpoint(split);
    ASSERT_TRUE(cut.ok()) << cut.status().to_string();
    auto checkpoint = Checkpoint::open(dir_ / "backbone", Residency::kCopied);
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().to_string();
    checkpoint_ = std::move(*checkpoint);
    auto model = LoadedModel::load(dir_ / "backbone", GetParam().precision);
    ASSERT_TRUE(model.ok()) << model.status().to_string();
    model_ = std::move(*model);
  }

  std::string module(const std::string& name) const { return dir_ / ("modules/" + name); }
  /// The module `name` as a bundle with random changes.
  std::string bundle(const std::string& name, const RandomChanges& changes, double weight = 1.0) {
    const std::string to = dir_ / ("bundles/" + name);
    std::filesystem::create_directories(dir_ / "bundles");
    write_bundle(module(name), to, random_changes(*checkpoint_, model_->config, changes), weight);
    return to;
  }
  std::vector<float> logits(const std::vector<std::string>& dirs,
                            const std::vector<std::string>& used) const {
    const auto table = model_->compose(dirs);
    EXPECT_TRUE(table.ok()) << table.status().to_string();
    if (!table.ok()) return {};
    ModuleMask mask{0};
    for (const std::string& name : used)
      mask.add(static_cast<size_t>((*table)->module_index(name)));
    return model_->logits(*table, mask, kTokens);
  }
  /// Of the checkpoint that `graft` makes of the same modules, loaded as any other.
  std::vector<float> grafted(const std::vector<std::string>& dirs) {
    GraftOptions graft;
    graft.backbone_dir = dir_ / "backbone";
    graft.module_dirs = dirs;
    graft.out_dir = dir_ / ("grafted" + std::to_string(++grafts_));
    const auto report = graft_checkpoint(graft);
    EXPECT_TRUE(report.ok()) << report.status().to_string();
    if (!report.ok()) return {};
    const auto whole = LoadedModel::load(graft.out_dir, GetParam().precision);
    EXPECT_TRUE(whole.ok()) << whole.status().to_string();
    if (!whole.ok()) return {};
    const auto table = whole->compose({});
    return whole->logits(*table, (*table)->all(), kTokens);
  }

  TempDir dir_;
  std::optional<Checkpoint> checkpoint_;
  std::optional<LoadedModel> model_;
  int grafts_ = 0;
};

/// Of one checkpoint: what there is to see has nothing to do with families and precisions.
class AveragesOfBundles : public Bundles {};

TEST_P(Bundles, OneIsTheOfflineMergeAndWithoutItTheBackboneIsAsItWas) {
  const DType stored = checkpoint_->find(all_needed(model_->config).back().name)->dtype;
  const std::string norms = bundle("one", {1, is_norm_or_attention, 0, stored});
  const std::string all = bundle("two", {2, {}, 0, DType::kF32});
  const std::string low = bundle("three", {3, {}, 3, DType::kBF16});
  for (const std::string& dir : {norms, all, low}) {
    SCOPED_TRACE(dir);
    const std::string name = std::filesystem::path(dir).filename();
    const std::vector<float> with = logits({dir}, {name});
    EXPECT_TRUE(same_bits(with, grafted({dir})));
    EXPECT_FALSE(same_bits(with, logits({module(name)}, {name}))) << "nothing was changed";
    EXPECT_TRUE(same_bits(logits({dir}, {}), logits({}, {})));
  }
}

TEST_P(Bundles, SeveralAreAveragedByTheirWeights) {
  const std::string one = bundle("one", {1, is_norm_or_attention, 2, DType::kF32}, 3.0);
  const std::string two = bundle("two", {2, {}, 0, DType::kF32}, 0.7);
  const std::string three = bundle("three", {3, is_norm_or_attention, 0, DType::kBF16});
  const std::vector<std::string> all{one, two, three};
  const std::vector<float> together = logits(all, {"one", "two", "three"});
  EXPECT_TRUE(same_bits(together, grafted(all)));
  // As if the others had never been loaded.
  EXPECT_TRUE(same_bits(logits(all, {"two"}), logits({two}, {"two"})));
  EXPECT_TRUE(same_bits(logits(all, {}), logits({}, {})));
  EXPECT_TRUE(same_bits(logits({one, two, module("three")}, {"one", "two"}),
                        logits({one, two}, {"one", "two"})));
  // Some of them, likewise.
  EXPECT_TRUE(same_bits(logits(all, {"one", "two"}), logits({one, two}, {"one", "two"})));
  EXPECT_TRUE(same_bits(logits(all, {"one", "three"}), logits({one, three}, {"one", "three"})));
}

Result<std::shared_ptr<const Backbone>> average_of_all(Averages::Modules modules) {
  std::vector<const Bundle*> bundles;
  for (const auto& module : modules) bundles.push_back(module->bundle.get());
  return averaged_backbone(bundles);
}

TEST_P(AveragesOfBundles, AnAverageIsMadeWhenItIsWantedAndOnceForAll) {
  const std::vector<std::string> all{bundle("one", {1, is_norm_or_attention, 0, DType::kF32}),
                                     bundle("two", {2, is_norm_or_attention, 0, DType::kF32}),
                                     bundle("three", {3, is_norm_or_attention, 0, DType::kF32})};
  const auto loaded = model_->compose(all);
  ASSERT_TRUE(loaded.ok()) << loaded.status().to_string();
  const auto& modules = (*loaded)->modules();
  int made = 0;
  Status result;
  Averages averages([&](Averages::Modules bundles) -> Result<std::shared_ptr<const Backbone>> {
    ++made;
    if (!result.ok()) return result;
    return average_of_all(bundles);
  });
  using Some = std::vector<std::shared_ptr<const Module>>;
  const Some pair{modules[1], modules[2]}, others{modules[2], modules[3]};
  auto first = averages.of(pair);
  EXPECT_FALSE(first->ready());
  EXPECT_EQ(made, 0);
  result = Status(Code::kResourceExhausted, "no room");
  EXPECT_EQ(first->wait(AverageFor::kRequest).code(), Code::kResourceExhausted);
  EXPECT_EQ(first->failure()->message(), "the average of the bundles: no room");
  result = {};
  ASSERT_TRUE(first->wait(AverageFor::kRequest).ok());
  EXPECT_FALSE(first->failure().has_value());
  EXPECT_EQ(made, 2);
  EXPECT_EQ(averages.of(pair), first);
  // It stays while its bundles are current, for whoever wants it next.
  first.reset();
  EXPECT_FALSE(averages.of(pair)->ready());
  averages.set_current(modules);
  ASSERT_TRUE(averages.of(pair)->wait(AverageFor::kRequest).ok());
  ASSERT_TRUE(averages.of(others)->wait(AverageFor::kRequest).ok());
  EXPECT_TRUE(averages.of(pair)->ready());
  EXPECT_EQ(made, 4);
  // The one that was used last goes last, and one that somebody has does not.
  EXPECT_TRUE(averages.let_go_one());
  EXPECT_FALSE(averages.of(others)->ready());
  const auto held = averages.of(pair);
  EXPECT_TRUE(held->ready());
  EXPECT_FALSE(averages.let_go_one());
  averages.set_current({});
  EXPECT_TRUE(held->ready());
  averages.stop();
  EXPECT_EQ(averages.of(others)->wait(AverageFor::kRequest).code(), Code::kUnavailable);
}

TEST_P(AveragesOfBundles, OneThatNobodyWaitsForIsMadeToItsEndForTheNext) {
  const std::vector<std::string> all{bundle("one", {1, is_norm_or_attention, 0, DType::kF32}),
                                     bundle("two", {2, is_norm_or_attention, 0, DType::kF32}),
                                     bundle("three", {3, is_norm_or_attention, 0, DType::kF32})};
  const auto loaded = model_->compose(all);
  ASSERT_TRUE(loaded.ok()) << loaded.status().to_string();
  const auto& modules = (*loaded)->modules();
  using Some = std::vector<std::shared_ptr<const Module>>;
  const Some pair{modules[1], modules[2]}, others{modules[2], modules[3]};
  std::promise<void> begin;
  const std::shared_future<void> begun = begin.get_future().share();
  Averages averages([&](Averages::Modules bundles) {
    begun.wait();
    return average_of_all(bundles);
  });
  averages.set_current(modules);
  EXPECT_FALSE(averages.has(pair));
  averages.of(pair)->begin(AverageFor::kRequest);
  EXPECT_FALSE(averages.let_go_one()) << "it is being made";
  EXPECT_EQ(averages.idle_bytes(*model_->backbone), 0u);
  begin.set_value();
  ASSERT_TRUE(averages.of(others)->wait(AverageFor::kRequest).ok());  // they are made in turn
  ASSERT_TRUE(averages.has(pair));
  const uint64_t bytes = averages.of(pair)->backbone().bytes_beside(*model_->backbone) +
                         averages.of(others)->backbone().bytes_beside(*model_->backbone);
  EXPECT_EQ(averages.idle_bytes(*model_->backbone), bytes);
  // For another composition it is not.
  const Some first_and_last{modules[1], modules[3]};
  averages.of(first_and_last)->begin(AverageFor::kRequest);
  averages.set_current({});
  ASSERT_TRUE(averages.of(others)->wait(AverageFor::kRequest).ok());
  EXPECT_FALSE(averages.has(first_and_last));
}

TEST_P(AveragesOfBundles, ThoseBeyondTheMostMakeRoomOrAreRefused) {
  const std::string dir = bundle("one", {1, is_norm_or_attention, 0, DType::kF32});
  const auto loaded = model_->compose({dir});
  ASSERT_TRUE(loaded.ok()) << loaded.status().to_string();
  // As many as are needed, of one content.
  std::vector<std::shared_ptr<const Module>> modules;
  for (size_t i = 0; i < Averages::kMost + 3; ++i)
    modules.push_back(std::make_shared<Module>(*(*loaded)->modules()[1]));
  std::vector<std::weak_ptr<const Backbone>> made;
  size_t others = 0;  // that were in memory when the last was made
  Averages averages([&](Averages::Modules bundles) {
    others = static_cast<size_t>(
        std::count_if(made.begin(), made.end(), [](const auto& one) { return !one.expired(); }));
    auto average = average_of_all(bundles);
    if (average.ok()) made.push_back(*average);
    return average;
  });
  averages.set_current(modules);
  const auto pair = [&](size_t i) { return averages.of(std::span(modules).subspan(i, 2)); };
  std::vector<std::shared_ptr<Average>> used;
  for (size_t i = 0; i < Averages::kMost; ++i) {
    used.push_back(pair(i));
    ASSERT_TRUE(used.back()->wait(AverageFor::kRequest).ok());
  }
  const auto more = pair(Averages::kMost);
  const Status refused = more->wait(AverageFor::kRequest);
  EXPECT_EQ(refused.code(), Code::kResourceExhausted) << refused.to_string();
  EXPECT_THAT(refused.message(), HasSubstr("found 8 averages in use"));
  // What requests choose does not hold a change of the composition back.
  const auto composed = pair(Averages::kMost + 1);
  EXPECT_TRUE(composed->wait(AverageFor::kComposition).ok());
  EXPECT_EQ(more->wait(AverageFor::kRequest).code(), Code::kResourceExhausted);
  used.erase(used.begin());
  EXPECT_TRUE(more->wait(AverageFor::kRequest).ok());
  EXPECT_EQ(others, Averages::kMost) << "what gave way was still in memory";
  EXPECT_FALSE(pair(0)->ready());
}

TEST_P(Bundles, ABackboneSharesWhatDidNotChangeAndSaysWhatItHolds) {
  const std::string dir = bundle("one", {1, is_norm_or_attention, 0, DType::kF32});
  const std::string other = bundle("two", {2, is_norm_or_attention, 2, DType::kF32});
  const auto table = model_->compose({dir, other});
  ASSERT_TRUE(table.ok()) << table.status().to_string();
  std::vector<std::span<const SharedChange>> changes;
  for (size_t i = 1; i <= 2; ++i) {
    const Bundle& one = *(*table)->modules()[i]->bundle;
    changes.emplace_back(one.changes());
    const uint64_t beside = one.backbone()->bytes_beside(*model_->backbone);
    EXPECT_LT(beside, model_->backbone->resident_bytes());
    // What is used in place is the file's.
    EXPECT_LE(made_of(*model_->source, one.changes()).resident, beside);
  }
  const auto active = (*table)->layout()->active((*table)->all());
  ASSERT_TRUE(active->wait().ok());
  EXPECT_EQ(average_bytes(*model_->source, changes).resident,
            active->backbone()->bytes_beside(*model_->backbone));
  // Once for all tables of these bundles that one builder makes.
  const RoutingTableBuilder builder(model_->config, model_->base);
  std::vector<std::shared_ptr<const Module>> loaded{(*table)->modules()[1], (*table)->modules()[2]};
  Composition composition = (*table)->composition();
  const auto two = builder.build(1, composition, loaded);
  ASSERT_TRUE(two.ok()) << two.status().to_string();
  const auto plain =
      load_module(module("three"), {model_->config, model_->fingerprint, model_->precision});
  ASSERT_TRUE(plain.ok()) << plain.status().to_string();
  loaded.push_back(*plain);
  composition.modules.push_back({"three", "1.0.0", "", "", true, 0.0f});
  const auto three = builder.build(2, composition, loaded);
  ASSERT_TRUE(three.ok()) << three.status().to_string();
  ASSERT_NE((*two)->layout(), (*three)->layout());
  EXPECT_EQ((*two)->layout()->active((*two)->all())->average,
            (*three)->layout()->active((*three)->all())->average);
}

TEST_P(Bundles, WhatDoesNotFitIsNamedTensorByTensor) {
  std::vector<TensorView> shared =
      random_changes(*checkpoint_, model_->config, {1, is_norm_or_attention, 0, DType::kF32});
  const std::string fits = shared[0].name;
  shared.push_back(tensor_of("model.layers.0.mlp.gate.weight", DType::kF32, {1, 2}, {0, 0}));
  shared.push_back(tensor_of(fits + ".delta_a", DType::kF32, {1, 2}, {0, 0}));
  shared[1].shape = {shared[1].elements(), 1, 1};
  const std::string half = all_needed(model_->config)[0].name;
  shared.push_back(tensor_of(half + ".delta_b", DType::kF32, {1, 2}, {0, 0}));
  std::filesystem::create_directories(dir_ / "bundles");
  write_bundle(module("one"), dir_ / "bundles/one", shared);
  const auto table = model_->compose({dir_ / "bundles/one"});
  ASSERT_FALSE(table.ok());
  const std::string text = table.status().message();
  EXPECT_EQ(table.status().code(), Code::kFailedPrecondition) << text;
  EXPECT_THAT(text, HasSubstr("module one: shared tensors: "));
  EXPECT_THAT(text, HasSubstr("\"model.layers.0.mlp.gate.weight\": found a tensor that"));
  EXPECT_THAT(text, HasSubstr("\"" + fits + "\": found both the tensor and a change of it"));
  EXPECT_THAT(text, HasSubstr("\"" + shared[1].name + "\": found shape ["));
  EXPECT_THAT(text, HasSubstr("\"" + half + "\": found delta_b alone"));
}

TEST_P(Bundles, NumbersThatAreNoneAreRefused) {
  std::vector<TensorView> shared =
      random_changes(*checkpoint_, model_->config, {1, is_norm_or_attention, 0, DType::kF32});
  std::vector<std::byte> bytes(shared[2].bytes.begin(), shared[2].bytes.end());
  const float bad = std::numeric_limits<float>::quiet_NaN();
  std::memcpy(bytes.data() + 4, &bad, sizeof(bad));
  shared[2].bytes = bytes;
  std::filesystem::create_directories(dir_ / "bundles");
  write_bundle(module("one"), dir_ / "bundles/one", shared);
  const auto table = model_->compose({dir_ / "bundles/one"});
  ASSERT_FALSE(table.ok());
  EXPECT_EQ(table.status().code(), Code::kDataCorrupt) << table.status().to_string();
  EXPECT_THAT(table.status().message(), HasSubstr(shared[2].name));
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, Bundles,
                         ::testing::Values(Case{"flex_olmo_f32", Precision::kF32},
                                           Case{"flex_olmo_bf16", Precision::kBF16},
                                           Case{"flex_olmo_bf16", Precision::kQ8},
                                           Case{"qwen3_moe_v5_fused_bf16", Precision::kBF16},
                                           Case{"deepseek_v2_lite", Precision::kBF16},
                                           Case{"deepseek_v2_lite", Precision::kQ4}),
                         [](const auto& test) {
                           return std::string(test.param.dir) + "_" + std::to_string(test.index);
                         });

INSTANTIATE_TEST_SUITE_P(Checkpoint, AveragesOfBundles,
                         ::testing::Values(Case{"flex_olmo_f32", Precision::kF32}));

}  // namespace
}  // namespace chimera
