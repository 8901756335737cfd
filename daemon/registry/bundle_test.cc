// Bundles in a running daemon: experts with the tensors of the backbone that belong to them, from
// load to unload.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "daemon/registry/testing.h"
#include "experts/bundle/testing.h"

namespace chimera {
namespace {

using namespace testing_support;
using ::testing::HasSubstr;

bool is_attention_or_norm(const NeededTensor& t) {
  return t.name.find("self_attn") != std::string::npos || t.shape.size() == 1;
}

class BundleTest : public RegistryTest {
 protected:
  void SetUp() override {
    RegistryTest::SetUp();
    checkpoint_ = must(Checkpoint::open(Fixture::get().backbone(), Residency::kCopied));
  }
  std::string bundle(const std::string& name, unsigned seed, double weight = 1.0,
                     int64_t rank = 0) {
    const std::string to = temp_.path + "/bundle-" + name;
    fs::remove_all(to);
    chimera::testing::RandomChanges changes{seed, is_attention_or_norm, rank, DType::kF32};
    chimera::testing::write_bundle(
        at(name), to,
        chimera::testing::random_changes(*checkpoint_, Fixture::get().loaded().backbone->config(),
                                         changes),
        weight);
    return to;
  }
  static EngineRequest request(int32_t seed, ModuleSelection modules = {}, int64_t n = 12) {
    EngineRequest wanted = greedy(prompt(seed, 9), n);
    wanted.modules = std::move(modules);
    return wanted;
  }
  static Stream run(const Daemon& daemon, int32_t seed, ModuleSelection modules = {}) {
    return stream_of(submit(*daemon.engine, request(seed, std::move(modules)))->done());
  }
  static ModuleSelection excluding(const std::vector<std::string>& names) {
    ModuleSelection selection;
    selection.exclude = names;
    return selection;
  }
  /// The engine lets go of what a sequence used on a thread of its own.
  template <class Done>
  static bool eventually(const Done& done) {
    const auto end = std::chrono::steady_clock::now() + 100s;
    while (!done() && std::chrono::steady_clock::now() < end) std::this_thread::sleep_for(1ms);
    return done();
  }
  /// What a daemon that has only these gives.
  Stream alone(const std::vector<std::string>& paths, int32_t seed) {
    Daemon::Settings settings;
    settings.deployment = spec_of(paths);
    Daemon daemon(temp_.path + "/state-" + std::to_string(++daemons_), std::move(settings));
    return run(daemon, seed);
  }

  std::optional<Checkpoint> checkpoint_;
  int daemons_ = 0;
};

TEST_F(BundleTest, OthersStreamsGoOnOverItsSwapAndExcludingItIsNotLoadingIt) {
  const std::string legal = bundle("legal", 1);
  const Stream before = alone({at("bio")}, 3);
  const Stream with = alone({at("bio"), legal}, 3);
  EXPECT_NE(before, with);
  auto daemon = start();
  ASSERT_TRUE(daemon->load(at("bio")).ok());
  // Begun before the swap and pinned over it, beside those on the new backbone.
  Unhurried pause;
  auto pinned = submit(*daemon->engine, request(3), nullptr, pause.from(2));
  ASSERT_TRUE(pinned->wait_tokens(2));
  ASSERT_TRUE(daemon->load(legal).ok());
  auto fresh = submit(*daemon->engine, request(3));
  auto without = submit(*daemon->engine, request(3, excluding({"legal"})));
  pause.go_on();
  EXPECT_EQ(stream_of(pinned->done()), before);
  EXPECT_EQ(stream_of(fresh->done()), with);
  EXPECT_EQ(stream_of(without->done()), before);
  // A client that may not use it.
  ModuleSelection rights;
  rights.rights = std::make_shared<const ModuleRights>(std::vector<std::string>{"bio"});
  EXPECT_EQ(run(*daemon, 3, rights), before);

  // And out again, while somebody is on it.
  Unhurried more;
  auto last = submit(*daemon->engine, request(3), nullptr, more.from(2));
  ASSERT_TRUE(last->wait_tokens(2));
  ASSERT_TRUE(daemon->registry->unload("legal").ok());
  EXPECT_EQ(run(*daemon, 3), before);
  more.go_on();
  EXPECT_EQ(stream_of(last->done()), with);
}

TEST_F(BundleTest, SequencesOfSeveralBackbonesShareAStepEachAsAlone) {
  const std::string legal = bundle("legal", 1, 2.0);
  const std::string bio = bundle("bio", 2, 1.0, 3);
  auto daemon = start();
  ASSERT_TRUE(daemon->load(legal).ok());
  ASSERT_TRUE(daemon->load(bio).ok());
  const std::vector<std::vector<std::string>> excluded{{}, {"legal"}, {"bio"}, {"legal", "bio"}};
  const std::vector<std::vector<std::string>> left{{legal, bio}, {bio}, {legal}, {}};
  std::vector<std::shared_ptr<Collector>> streams;
  for (int32_t seed = 0; seed < 8; ++seed) {
    streams.push_back(
        submit(*daemon->engine, request(seed, excluding(excluded[static_cast<size_t>(seed) % 4]))));
  }
  for (int32_t seed = 0; seed < 8; ++seed) {
    const auto i = static_cast<size_t>(seed);
    EXPECT_EQ(stream_of(streams[i]->done()), alone(left[i % 4], seed)) << "seed " << seed;
  }
}

TEST_F(BundleTest, ARequestMayUseSomeOfThem) {
  auto daemon = start();
  const std::vector<std::string> paths{bundle("legal", 1, 2.0), bundle("bio", 2),
                                       bundle("finance", 3, 0.5, 2)};
  for (const std::string& path : paths) ASSERT_TRUE(daemon->load(path).ok());
  const Stream all = alone(paths, 3);
  EXPECT_EQ(run(*daemon, 3), all);
  EXPECT_EQ(run(*daemon, 3, excluding({"legal", "bio"})), alone({paths[2]}, 3));
  // Side by side, in steps of several passes.
  const std::vector<std::vector<std::string>> out{{"finance"}, {"bio"}, {"legal"}, {}};
  std::vector<std::shared_ptr<Collector>> streams;
  for (const auto& names : out)
    streams.push_back(submit(*daemon->engine, request(3, excluding(names))));
  EXPECT_EQ(stream_of(streams[0]->done()), alone({paths[0], paths[1]}, 3));
  EXPECT_EQ(stream_of(streams[1]->done()), alone({paths[0], paths[2]}, 3));
  EXPECT_EQ(stream_of(streams[2]->done()), alone({paths[1], paths[2]}, 3));
  EXPECT_EQ(stream_of(streams[3]->done()), all);
  // By rights, too.
  ModuleSelection rights;
  rights.rights =
      std::make_shared<const ModuleRights>(std::vector<std::string>{"legal", "finance"});
  EXPECT_EQ(run(*daemon, 3, rights), alone({paths[0], paths[2]}, 3));
  // The rest is made into what they are without it.
  ASSERT_TRUE(daemon->registry->revoke("finance").ok());
  EXPECT_EQ(run(*daemon, 3), alone({paths[0], paths[1]}, 3));
}

TEST_F(BundleTest, WhatARequestHadMadeStaysForTheNextAndGivesWay) {
  const std::vector<std::string> paths{bundle("legal", 1), bundle("bio", 2), bundle("finance", 3)};
  Ledger ledger(MemoryBudget{uint64_t{1} << 30, uint64_t{1} << 30, 0, "memory.budget"});
  Daemon::Settings settings;
  settings.ledger = &ledger;
  auto daemon = start(std::move(settings));
  for (const std::string& path : paths) ASSERT_TRUE(daemon->load(path).ok());
  const uint64_t before = ledger.account().used;
  const Stream some = alone({paths[0], paths[1]}, 3);
  EXPECT_EQ(run(*daemon, 3, excluding({"finance"})), some);
  const uint64_t with = ledger.account().used;
  EXPECT_GT(with, before);
  EXPECT_EQ(run(*daemon, 3, excluding({"finance"})), some);
  EXPECT_EQ(ledger.account().used, with) << "made again";
  // To whoever needs its memory, and to another composition.
  const uint64_t missing = ledger.account().free() + 1;
  EXPECT_TRUE(
      eventually([&] { return ledger.take(MemoryUse::kScratch, "", missing, "a test").ok(); }));
  EXPECT_EQ(ledger.account().used, before);
  EXPECT_EQ(run(*daemon, 3, excluding({"finance"})), some);
  EXPECT_EQ(ledger.account().used, with);
  ASSERT_TRUE(daemon->registry->unload("finance").ok());
  EXPECT_EQ(run(*daemon, 3), some);
  ASSERT_TRUE(daemon->registry->unload("bio").ok());
  ASSERT_TRUE(daemon->registry->unload("legal").ok());
  EXPECT_TRUE(
      eventually([&] { return describe(ledger.account()).find("average") == std::string::npos; }));
}

TEST_F(BundleTest, AStreamThatUsedARevokedOneGoesOnWithoutIt) {
  const std::string legal = bundle("legal", 1);
  auto daemon = start();
  ASSERT_TRUE(daemon->load(at("bio")).ok());
  ASSERT_TRUE(daemon->load(legal).ok());
  Unhurried pause;
  auto stream = submit(*daemon->engine, request(3), nullptr, pause.from(3));
  ASSERT_TRUE(stream->wait_tokens(3));
  std::weak_ptr<const Bundle> held = daemon->engine->table()->modules().back()->bundle;
  ASSERT_TRUE(daemon->registry->revoke("legal").ok());
  EXPECT_TRUE(held.expired()) << "its tensors are still in memory";
  pause.go_on();
  stream->done();
  EXPECT_EQ(run(*daemon, 3), alone({at("bio")}, 3));
}

TEST_F(BundleTest, ItHasTheWeightThatItsEntrySays) {
  const std::string legal = bundle("legal", 1, 1.0), bio = bundle("bio", 2, 4.0);
  const Stream equal = alone({legal, bio}, 3);
  const std::string heavy = bundle("legal", 1, 12.0);
  const Stream weighed = alone({heavy, bio}, 3);
  EXPECT_NE(equal, weighed);
  ASSERT_EQ(bundle("legal", 1, 1.0), legal);  // in its place, as it was
  std::string digest;
  {
    auto daemon = start();
    LoadArgs args = load_of(legal);
    args.weight = 12.0;
    ASSERT_TRUE(daemon->registry->load(args).ok());  // 2
    ASSERT_TRUE(daemon->load(bio).ok());             // 3
    EXPECT_EQ(run(*daemon, 3), weighed);
    EXPECT_EQ(daemon->registry->modules().front().weight, 12.0);
    digest = daemon->digest();
    // A load that says nothing of it changes nothing of it.
    EXPECT_TRUE(must(daemon->load(legal)).changes.empty());
    CompositionSpec wish = spec_of({legal, bio});
    EXPECT_NE(daemon->registry->outline(wish).composition, digest);
    EXPECT_GT(daemon->registry->outline(wish).memory_bytes, 0);
    wish.modules[0].weight = 12.0;
    EXPECT_EQ(daemon->registry->outline(wish).composition, digest);
    EXPECT_EQ(daemon->registry->outline(wish).memory_bytes, 0);
    args.weight = 1.0;
    const auto report = daemon->registry->load(args);  // 4
    ASSERT_TRUE(report.ok()) << report.status().to_string();
    ASSERT_EQ(report->changes.size(), 1u);
    EXPECT_EQ(report->changes[0].action, ChangeAction::kWeight);
    EXPECT_EQ(report->changes[0].detail, "12 -> 1");
    EXPECT_EQ(run(*daemon, 3), equal);
    ASSERT_TRUE(daemon->registry->rollback(3).ok());
    EXPECT_EQ(daemon->digest(), digest);
    EXPECT_EQ(run(*daemon, 3), weighed);
    LoadArgs plain = load_of(at("finance"));
    plain.weight = 2.0;
    const auto refused = daemon->registry->load(plain);
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.status().code(), Code::kFailedPrecondition);
    EXPECT_THAT(refused.status().message(), HasSubstr("module finance: weight: found 2"));
  }
  const auto restarted = start();
  EXPECT_EQ(restarted->digest(), digest);
  EXPECT_EQ(run(*restarted, 3), weighed);
}

TEST_F(BundleTest, ThePlanSaysWhatItTakesAndTheAccountHasIt) {
  const std::string legal = bundle("legal", 1), bio = bundle("bio", 2, 1.0, 3);
  Ledger ledger(MemoryBudget{uint64_t{1} << 30, uint64_t{1} << 30, 0, "memory.budget"});
  Daemon::Settings settings;
  settings.ledger = &ledger;
  auto daemon = start(std::move(settings));
  const auto planned = [&](const std::vector<std::string>& paths) {
    const PlanReport report = daemon->registry->outline(spec_of(paths));
    EXPECT_TRUE(report.refusals.empty()) << report.refusals.front().to_string();
    return static_cast<uint64_t>(report.memory_bytes);
  };
  const uint64_t first = planned({legal});
  const uint64_t both = planned({legal, bio});
  ASSERT_TRUE(daemon->load(legal).ok());
  EXPECT_EQ(ledger.account().used, first);
  EXPECT_EQ(planned({legal, bio}), both - first);
  ASSERT_TRUE(daemon->load(bio).ok());
  EXPECT_EQ(ledger.account().used, both);
  EXPECT_THAT(describe(ledger.account()), HasSubstr("backbone average of 2 bundles"));
  EXPECT_EQ(planned({legal, bio}), 0u);
  ASSERT_TRUE(daemon->registry->unload("bio").ok());
  ASSERT_TRUE(daemon->registry->unload("legal").ok());
  EXPECT_EQ(daemon->names(), "");
}

TEST_F(BundleTest, ThePlanNeedsNoRoomForAnAverageThatIsThere) {
  const std::vector<std::string> paths{bundle("legal", 1), bundle("bio", 2), bundle("finance", 3)};
  Ledger ledger(MemoryBudget{uint64_t{1} << 30, uint64_t{1} << 30, 0, "memory.budget"});
  Daemon::Settings settings;
  settings.ledger = &ledger;
  auto daemon = start(std::move(settings));
  for (const std::string& path : paths) ASSERT_TRUE(daemon->load(path).ok());
  (void)run(*daemon, 3, excluding({"finance"}));
  auto place = must(ledger.take(MemoryUse::kScratch, "", ledger.account().free(), "a test"));
  const PlanReport there = daemon->registry->outline(spec_of({paths[0], paths[1]}));
  EXPECT_TRUE(there.refusals.empty()) << there.refusals.front().to_string();
  const uint64_t used = ledger.account().used;
  // One that is not there; what is kept would not be enough, and stays.
  const PlanReport other = daemon->registry->outline(spec_of({paths[0], paths[2]}));
  ASSERT_EQ(other.refusals.size(), 1u);
  EXPECT_THAT(other.refusals.front().message(), HasSubstr("the average of 2 bundles: needs"));
  EXPECT_EQ(ledger.account().used, used);
}

TEST_F(BundleTest, ThePlanPredictsSharesWithSeveral) {
  const std::string legal = bundle("legal", 1), bio = bundle("bio", 2);
  Daemon::Settings settings;
  settings.engine.gate_sample_bytes = 1 << 20;
  auto daemon = start(std::move(settings));
  ASSERT_TRUE(daemon->load(legal).ok());
  for (int32_t seed = 0; seed < 4; ++seed) (void)run(*daemon, seed);
  const auto names = [](const PlanReport& report) {
    std::string out;
    double sum = 0.0;
    for (const PredictedShare& share : report.shares) {
      out += share.module + " ";
      sum += share.then;
    }
    EXPECT_NEAR(sum, 1.0, 1e-6);
    return out;
  };
  // One of them not loaded yet.
  EXPECT_THAT(names(daemon->registry->outline(spec_of({legal, bio}))), HasSubstr("legal bio "));
  EXPECT_THAT(names(daemon->registry->plan(spec_of({legal, bio}))), HasSubstr("legal bio "));
  ASSERT_TRUE(daemon->load(bio).ok());
  (void)run(*daemon, 5);
  EXPECT_THAT(names(daemon->registry->outline(spec_of({bio}))), HasSubstr("bio legal "));
}

TEST_F(BundleTest, WithoutRoomForTheAverageTheSecondIsRefusedAndARevocationIsNot) {
  const std::vector<std::string> paths{bundle("legal", 1), bundle("bio", 2), bundle("finance", 3)};
  Ledger ledger(MemoryBudget{uint64_t{1} << 30, uint64_t{1} << 30, 0, "memory.budget"});
  Daemon::Settings settings;
  settings.ledger = &ledger;
  settings.engine.experts_room = std::chrono::milliseconds(0);
  auto daemon = start(std::move(settings));
  // Room for the module and not for what it is with the other.
  ASSERT_TRUE(daemon->load(paths[0]).ok());
  const auto planned = [&] { return daemon->registry->outline(spec_of({paths[0], paths[1]})); };
  const uint64_t both = static_cast<uint64_t>(planned().memory_bytes);
  {
    auto place =
        must(ledger.take(MemoryUse::kScratch, "", ledger.account().free() - both, "a test"));
    EXPECT_FALSE(planned().refusals.empty());
    const auto refused = daemon->load(paths[1]);
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.status().code(), Code::kResourceExhausted) << refused.status().to_string();
    EXPECT_THAT(refused.status().message(), HasSubstr("the average of 2 bundles: needs"));
    EXPECT_EQ(daemon->names(), "legal");
  }
  ASSERT_TRUE(daemon->load(paths[1]).ok());
  ASSERT_TRUE(daemon->load(paths[2]).ok());
  // All that is free, and what the average in use will leave.
  auto place = must(ledger.take(MemoryUse::kScratch, "", ledger.account().free(), "a test"));
  auto left = must(ledger.take(MemoryUse::kScratch, "", 0, "a test"));
  left.correct(uint64_t{1} << 30);
  ASSERT_TRUE(daemon->registry->revoke("bio").ok());
  EXPECT_EQ(daemon->names(), "legal,finance");
  EXPECT_EQ(run(*daemon, 3, excluding({"legal"})), alone({paths[2]}, 3));
  const Status refused = submit(*daemon->engine, request(3))->error();
  EXPECT_EQ(refused.code(), Code::kResourceExhausted) << refused.to_string();
  EXPECT_THAT(refused.message(), HasSubstr("bundles legal, finance: their average"));
  place = {};
  left = {};
  // The next request has it made.
  EXPECT_EQ(run(*daemon, 3), alone({paths[0], paths[2]}, 3));
}

TEST_F(BundleTest, TheCheckpointItChangesMustBeTheOneThatIsLoaded) {
  // Of low rank: the numbers of the checkpoint are needed.
  const std::string legal = bundle("legal", 1, 1.0, 2);
  auto daemon = start();
  const std::string weights = Fixture::get().backbone() + "/model.safetensors";
  const std::string aside = temp_.path + "/aside";
  fs::copy_file(weights, aside);
  fs::rename(weights, weights + ".kept");
  fs::rename(aside, weights);
  const auto refused = daemon->load(legal);
  fs::rename(weights + ".kept", weights);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.status().code(), Code::kFailedPrecondition) << refused.status().to_string();
  EXPECT_THAT(refused.status().message(), HasSubstr("other files than the backbone"));
  EXPECT_TRUE(daemon->load(legal).ok());
}

}  // namespace
}  // namespace chimera
