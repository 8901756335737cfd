// Loads within a memory budget: refused before anything is read, counted for as long as anybody
// keeps the module.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>

#include "daemon/registry/testing.h"
#include "experts/kinds/size.h"

namespace chimera {
namespace {

using namespace testing_support;
using testing::HasSubstr;

class MemoryTest : public RegistryTest {
 protected:
  /// A budget for `modules` of the fixture's equal modules, and a little.
  std::unique_ptr<Daemon> with_room_for(uint64_t modules, Daemon::Settings settings = {}) {
    const BackboneInfo info{Fixture::get().loaded().backbone->config(),
                            Fixture::get().loaded().fingerprint, Precision::kF32};
    size_ = must(module_size(at("legal"), must(read_manifest(at("legal"))), info));
    const uint64_t budget = (modules - 1) * size_.resident + size_.loading + size_.loading / 8;
    ledger_ = std::make_unique<Ledger>(MemoryBudget{budget, budget, 0, "memory.budget"});
    settings.ledger = ledger_.get();
    return start(std::move(settings));
  }
  /// Waits until the account names exactly these modules, in any order.
  bool eventually_held(const std::vector<std::string>& names) const {
    for (int i = 0; i < 6000; ++i) {
      std::vector<std::string> held;
      for (const auto& entry : ledger_->account().entries) held.push_back(entry.name);
      if (testing::Matches(testing::UnorderedElementsAreArray(names))(held)) return true;
      std::this_thread::sleep_for(10ms);
    }
    return false;
  }

  ModuleSize size_;
  std::unique_ptr<Ledger> ledger_;
};

TEST_F(MemoryTest, WhatDoesNotFitIsRefusedBeforeItIsReadAndFitsOnceThereIsRoom) {
  auto daemon = with_room_for(2);
  ASSERT_TRUE(daemon->load(at("legal")).ok());
  ASSERT_TRUE(daemon->load(at("bio")).ok());
  const std::string digest = daemon->digest();
  // Damaged: had it been read, that would be the error.
  const std::string damaged = copy("finance");
  std::string bytes = slurp(damaged + "/weights.safetensors");
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  spill(damaged + "/weights.safetensors", bytes);
  const uint64_t hashed = daemon->loader->contents_hashed();
  const auto refused = daemon->load(damaged);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.status().code(), Code::kResourceExhausted) << refused.status().to_string();
  EXPECT_THAT(refused.status().message(), HasSubstr("module finance: needs "));
  EXPECT_THAT(refused.status().message(), HasSubstr("module legal "));
  EXPECT_THAT(refused.status().hint(), HasSubstr("unload legal "));
  EXPECT_EQ(daemon->loader->contents_hashed(), hashed);
  EXPECT_EQ(daemon->digest(), digest);

  const PlanReport plan = daemon->registry->plan(spec_of({at("legal"), at("bio"), at("finance")}));
  ASSERT_EQ(plan.refusals.size(), 1u);
  EXPECT_EQ(plan.refusals[0].code(), Code::kResourceExhausted);

  ASSERT_TRUE(daemon->registry->unload("legal").ok());
  ASSERT_TRUE(eventually_held({"bio 1.0.0"})) << describe(ledger_->account());
  EXPECT_EQ(daemon->load(damaged).status().code(), Code::kDataCorrupt);
  EXPECT_TRUE(daemon->load(at("finance")).ok());
  EXPECT_EQ(ledger_->account().entries.size(), 2u) << "what failed holds nothing";
}

TEST_F(MemoryTest, ALoadWithoutRoomWaitsForTheOnesBesideIt) {
  auto daemon = with_room_for(1);
  for (const bool through : {false, true}) {
    // Stands still after it was read, with its place taken.
    Gate gate;
    std::atomic<int> asked{0};
    std::promise<Result<ChangeReport>> first, second;
    const auto hold = [&] { return ++asked == 3 ? gate.pass() : Status(); };
    const std::string job =
        daemon->registry->ask(load_of(at("legal")), {0, hold},
                              [&](const Result<ChangeReport>& report) { first.set_value(report); });
    ASSERT_TRUE(gate.reached_by(1));
    // Told of its progress only once there is room.
    std::atomic<bool> begun{false}, looked{false};
    daemon->registry->ask(
        load_of(at("bio")),
        {0, [&] { return looked = true, Status(); }, [&](const JobStatus&) { begun = true; }},
        [&](const Result<ChangeReport>& report) { second.set_value(report); });
    auto answer = second.get_future();
    while (!looked) std::this_thread::sleep_for(1ms);
    EXPECT_EQ(answer.wait_for(200ms), std::future_status::timeout) << "refused while it may fit";
    EXPECT_FALSE(begun);
    if (!through) {
      EXPECT_TRUE(daemon->registry->cancel(job));
    }
    gate.open();
    EXPECT_EQ(first.get_future().get().ok(), through);
    const Status status = answer.get().status();
    EXPECT_EQ(status.code(), through ? Code::kResourceExhausted : Code::kOk) << status.to_string();
    if (through) continue;
    ASSERT_TRUE(daemon->registry->unload("bio").ok());
    ASSERT_TRUE(eventually_held({}));
  }
}

TEST_F(MemoryTest, ACopyThatAStreamStillUsesCountsUntilTheStreamEnds) {
  auto daemon = with_room_for(2);
  ASSERT_TRUE(daemon->load(at("legal")).ok());
  Engine::RequestId id = 0;
  auto stream = submit(*daemon->engine, greedy(prompt(3, 9), 400), &id, slowly);
  ASSERT_TRUE(stream->wait_tokens(2));
  // Another version of it: the one before stays for the stream.
  const std::string next = copy("legal");
  edit(next + "/module.yaml", must(read_manifest(next)).version, "9.9.9");
  ASSERT_TRUE(daemon->load(next).ok());
  EXPECT_EQ(ledger_->account().entries.size(), 2u);
  const auto third = daemon->load(at("bio"));
  ASSERT_FALSE(third.ok()) << "two copies of legal fill the budget";
  EXPECT_EQ(third.status().code(), Code::kResourceExhausted);
  EXPECT_THAT(third.status().hint(), HasSubstr("let the streams end that still use it"));
  daemon->engine->cancel(id);
  stream->wait();
  ASSERT_TRUE(eventually_held({"legal 9.9.9"})) << describe(ledger_->account());
  EXPECT_TRUE(daemon->load(at("bio")).ok());
}

// Two copies fill the budget, and the stream that keeps one of them does not end.
TEST_F(MemoryTest, ACopyThatAStreamStillUsesGoesWhenTheTimeForItIsUp) {
  Daemon::Settings settings;
  settings.engine.pin_limit = 100ms;
  auto daemon = with_room_for(2, std::move(settings));
  ASSERT_TRUE(daemon->load(at("legal")).ok());
  Engine::RequestId id = 0;
  auto stream = submit(*daemon->engine, greedy(prompt(3, 9), 1900), &id, slowly);
  ASSERT_TRUE(stream->wait_tokens(2));
  const std::string next = copy("legal");
  edit(next + "/module.yaml", must(read_manifest(next)).version, "9.9.9");
  ASSERT_TRUE(daemon->load(next).ok());
  ASSERT_TRUE(eventually_held({"legal 9.9.9"})) << describe(ledger_->account());
  EXPECT_EQ(stream->terminals(), 0);
  EXPECT_TRUE(daemon->load(at("bio")).ok());
  daemon->engine->cancel(id);
  EXPECT_GT(stream->done().completion_tokens, 0);
}

TEST_F(MemoryTest, WhatAPlanProbedIsThereForItsApply) {
  auto daemon = with_room_for(2);
  const CompositionSpec both = spec_of({at("legal"), at("bio")});
  ASSERT_TRUE(daemon->registry->plan(both).refusals.empty());
  EXPECT_EQ(ledger_->account().entries.size(), 2u) << "kept, and in the account";
  EXPECT_TRUE(daemon->registry->outline(both).refusals.empty()) << "it takes no more room";
  EXPECT_GT(daemon->registry->outline(both).memory_bytes, 0);
  ASSERT_TRUE(daemon->registry->apply(both, InFlight::kPin).ok());
  const JobStatus applied = daemon->registry->jobs().back();
  EXPECT_EQ(applied.call, "apply");
  EXPECT_EQ(applied.bytes_total, 0u) << "nothing was read again";
  // It is not kept any longer than it is used.
  ASSERT_TRUE(daemon->registry->unload("legal").ok());
  EXPECT_TRUE(eventually_held({"bio 1.0.0"})) << describe(ledger_->account());
}

TEST_F(MemoryTest, WhatAPlanProbedGivesWay) {
  auto daemon = with_room_for(2);
  const auto keep = [&](const std::vector<std::string>& paths) {
    ASSERT_TRUE(daemon->registry->plan(spec_of(paths)).refusals.empty());
    ASSERT_EQ(ledger_->account().entries.size(), paths.size());
  };
  keep({at("legal"), at("bio")});
  EXPECT_EQ(daemon->registry->revoke("bio").status().code(), Code::kNotFound);
  EXPECT_TRUE(eventually_held({"legal 1.0.0"})) << "revoked, so gone";
  keep({at("legal"), at("bio")});
  EXPECT_TRUE(daemon->registry->outline(spec_of({at("finance")})).refusals.empty()) << "to a plan";
  keep({at("legal"), at("bio")});
  EXPECT_TRUE(daemon->load(at("finance")).ok()) << "to a load";
  EXPECT_TRUE(eventually_held({"finance 1.0.0"})) << describe(ledger_->account());
  keep({at("finance"), at("bio")});
  ASSERT_TRUE(daemon->registry->unload("finance").ok());
  EXPECT_TRUE(eventually_held({})) << "to a composition that it was not planned for";
  keep({at("legal")});
  EXPECT_FALSE(daemon->registry->plan(spec_of({at("nowhere")})).refusals.empty());
  EXPECT_TRUE(eventually_held({})) << "to the next plan";

  std::weak_ptr<const Module> legal;
  {
    auto module = must(daemon->loader->load(at("legal")));
    legal = module;
    daemon->loader->kept().keep({std::move(module)}, 1ms);
  }
  EXPECT_TRUE(eventually_held({})) << "when its time is up";
  EXPECT_TRUE(legal.expired());
}

// What a plan keeps is decided when it ends: by then a revocation has passed, which may have been
// asked for before the plan and let go of nothing.
TEST_F(MemoryTest, WhatIsRevokedWhileAPlanIsUnderWayIsNotKeptByIt) {
  auto daemon = with_room_for(2);
  KeptModules& kept = daemon->loader->kept();
  KeptModules::Modules both{must(daemon->loader->load(at("legal"))),
                            must(daemon->loader->load(at("bio")))};
  {
    KeptModules::Plan under_way(&kept);
    EXPECT_EQ(daemon->registry->revoke("bio").status().code(), Code::kNotFound);
    under_way.keep(std::move(both), 1h);
  }
  EXPECT_EQ(describe(ledger_->account()).find("bio"), std::string::npos)
      << describe(ledger_->account());
  EXPECT_TRUE(eventually_held({"legal 1.0.0"}));
  // A plan that begins after it brings the module back, as whoever asked for it wants.
  ASSERT_TRUE(daemon->registry->plan(spec_of({at("bio")})).refusals.empty());
  EXPECT_TRUE(eventually_held({"bio 1.0.0"}));
}

// Two loads find no room while a module that was kept is being destroyed: who comes second finds
// nothing kept any more, and waits for that room all the same.
TEST_F(MemoryTest, WhatWasKeptGivesWayToAllWhoNeedItsRoom) {
  KeptModules kept;
  Gate gate;
  const auto slow_to_go = [&gate] {
    return std::shared_ptr<const Module>(new Module(), [&gate](const Module* module) {
      (void)gate.pass();
      delete module;
    });
  };
  kept.keep({slow_to_go()}, 1h);
  auto first = std::async(std::launch::async, [&] { return kept.let_go(); });
  ASSERT_TRUE(gate.reached_by(1));
  auto second = std::async(std::launch::async, [&] { return kept.let_go(); });
  EXPECT_EQ(second.wait_for(50ms), std::future_status::timeout) << "it found no room to wait for";
  gate.open();
  EXPECT_TRUE(first.get());
  EXPECT_TRUE(second.get());
  EXPECT_FALSE(kept.let_go()) << "nothing is left";
}

TEST_F(MemoryTest, AtTheStartWhatDoesNotFitIsLeftOut) {
  const BackboneInfo info{Fixture::get().loaded().backbone->config(),
                          Fixture::get().loaded().fingerprint, Precision::kF32};
  const ModuleSize size = must(module_size(at("legal"), must(read_manifest(at("legal"))), info));
  const uint64_t budget = size.loading + size.loading / 8;
  Ledger ledger({budget, budget, 0, "memory.budget"});
  Daemon::Settings settings;
  settings.ledger = &ledger;
  settings.deployment = spec_of({at("legal"), at("bio")});
  auto daemon = start(std::move(settings));
  EXPECT_EQ(daemon->names(), "legal");
}

TEST_F(MemoryTest, GateRowsOfVeryManyModulesCountWhileATableHasThem) {
  constexpr int kMany = 20;
  auto daemon = with_room_for(kMany + 4);
  std::vector<std::string> paths;
  for (int i = 0; i < kMany; ++i) {
    const std::string name = "m" + std::to_string(i);
    paths.push_back(copy("legal", name));
    edit(paths.back() + "/module.yaml", "name: \"legal\"", "name: \"" + name + "\"");
  }
  const auto counted = [&] {
    uint64_t bytes = 0;
    for (const auto& entry : ledger_->account().entries)
      bytes += entry.use == MemoryUse::kTables ? entry.bytes : 0;
    return bytes;
  };
  ASSERT_TRUE(daemon->registry->apply(spec_of({paths[0]}), InFlight::kPin).ok());
  EXPECT_EQ(counted(), 0u);
  const auto report = daemon->registry->apply(spec_of(paths), InFlight::kPin);
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  const ModelConfig& config = Fixture::get().loaded().backbone->config();
  const auto rows = static_cast<uint64_t>(config.num_layers * (config.num_experts + kMany));
  EXPECT_EQ(counted(), rows * static_cast<uint64_t>(config.hidden_size) * sizeof(float));
  ASSERT_TRUE(daemon->registry->apply(spec_of({}), InFlight::kPin).ok());
  for (int i = 0; i < 6000 && counted() > 0; ++i) std::this_thread::sleep_for(10ms);
  EXPECT_EQ(counted(), 0u);
}

}  // namespace
}  // namespace chimera
