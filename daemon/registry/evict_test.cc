// Replaced experts of the backbone that leave memory (memory.evict_replaced): nobody's answer
// tells.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "daemon/registry/testing.h"
#include "experts/kinds/evictable_base.h"

namespace chimera {
namespace {

using namespace testing_support;
using testing::HasSubstr;

/// Negates every number of a safetensors file of F32.
void negate(const std::string& path) {
  std::string bytes = slurp(path);
  uint64_t header = 0;
  std::memcpy(&header, bytes.data(), sizeof header);
  for (size_t at = sizeof header + header + 3; at < bytes.size(); at += 4)
    bytes[at] = static_cast<char>(bytes[at] ^ '\x80');
  spill(path, bytes);
}

/// A checkpoint of the test's own, and `swap`, which replaces two of its experts in every layer.
class EvictTest : public RegistryTest {
 protected:
  void SetUp() override {
    CHIMERA_NEEDS_GOLDEN();
    fs::copy(kGolden + "/models/flex_olmo_f32", backbone_dir(), fs::copy_options::recursive);
    fs::permissions(backbone_dir(), fs::perms::owner_all);
    SplitOptions split;
    split.checkpoint_dir = backbone_dir();
    split.backbone_out = temp_.path + "/unused";
    split.modules_out = temp_.path + "/modules";
    split.attach = Attach::kReplace;
    split.modules = {{"swap", {{-1, {1, 2}}}}, {"other", {{-1, {3}}}}};
    must(split_checkpoint(split));
    const std::string file = swap() + "/weights.safetensors";
    const std::string digest = must(sha256_of_file(file));
    negate(file);
    reseal(swap(), digest);
  }

  std::string backbone_dir() const { return temp_.path + "/checkpoint"; }
  std::string swap() const { return temp_.path + "/modules/swap"; }
  std::string other() const { return temp_.path + "/modules/other"; }
  std::string weights() const { return backbone_dir() + "/model.safetensors"; }

  std::unique_ptr<Daemon> serve(bool evict = true, CompositionSpec deployment = {},
                                Daemon::Settings settings = {}) {
    DeploymentConfig config;
    config.backbone.path = backbone_dir();
    config.backbone.precision = Precision::kF32;
    config.memory.evict_replaced = evict;
    settings.deployment = std::move(deployment);
    settings.model = must(load_backbone(config, ""));
    base_ = settings.model->base;
    fs::remove_all(state());
    return start(std::move(settings));
  }
  /// Bytes of the backbone's experts in memory, once all that goes has gone.
  uint64_t held() const {
    base_->residency->settle();
    return base_->resident_bytes();
  }
  Stream excluding(Daemon& daemon) const {
    EngineRequest request = greedy(prompt(3, 9), 12);
    request.modules.exclude = {"swap"};
    return stream_of(submit(*daemon.engine, std::move(request))->done());
  }

  std::shared_ptr<const Module> base_;
};

TEST_F(EvictTest, TheyGoWithTheReplacementAndComeBackWithItsEnd) {
  auto plain = serve(false);
  const Stream without = plain->run();
  ASSERT_TRUE(plain->load(swap()).ok());
  const Stream with = plain->run();
  ASSERT_NE(with, without) << "the module changes nothing";
  plain.reset();

  auto daemon = serve();
  const uint64_t whole = held();
  EXPECT_EQ(daemon->run(), without);
  ASSERT_TRUE(daemon->load(swap()).ok());
  const uint64_t less = held();
  EXPECT_LT(less, whole);
  EXPECT_EQ(daemon->run(), with);
  ASSERT_TRUE(daemon->registry->set_enabled("swap", false).ok());
  EXPECT_EQ(held(), whole);
  EXPECT_EQ(daemon->run(), without);
  ASSERT_TRUE(daemon->registry->set_enabled("swap", true).ok());
  EXPECT_EQ(held(), less);
  EXPECT_EQ(daemon->run(), with);
  ASSERT_TRUE(daemon->registry->unload("swap").ok());
  EXPECT_EQ(held(), whole);
  EXPECT_EQ(daemon->run(), without);
  ASSERT_TRUE(daemon->registry->rollback({}).ok());
  EXPECT_EQ(held(), less);
  EXPECT_EQ(daemon->run(), with);
}

TEST_F(EvictTest, ADaemonThatStartsWithTheReplacementLetsThemGo) {
  auto daemon = serve(true, spec_of({swap()}));
  ASSERT_EQ(daemon->names(), "swap");
  const uint64_t less = held();
  EXPECT_LT(less, base_->residency->total_bytes());
  const Stream with = daemon->run();
  const PlanReport plan = daemon->registry->plan({});
  EXPECT_EQ(plan.experts_bytes, static_cast<int64_t>(base_->residency->bytes_of([] {
              std::vector<ExpertPlace> places;
              for (int64_t layer = 0; layer < 3; ++layer)
                for (const int64_t e : {1, 2}) places.push_back({layer, e});
              return places;
            }())));
  const PlanReport outline = daemon->registry->outline({});
  EXPECT_EQ(outline.experts_bytes, plan.experts_bytes);
  EXPECT_EQ(daemon->run(), with);
}

TEST_F(EvictTest, WhoExcludesTheReplacementGetsThemReadAgain) {
  auto daemon = serve();
  const Stream without = daemon->run();
  const uint64_t whole = held();
  ASSERT_TRUE(daemon->load(swap()).ok());
  const uint64_t less = held();
  ASSERT_LT(less, whole);
  const Stream with = daemon->run();
  EXPECT_EQ(excluding(*daemon), without);
  EXPECT_EQ(daemon->run(), with);
  EXPECT_EQ(excluding(*daemon), without);
  EXPECT_EQ(held(), whole) << "for the next request of that kind";
  // With the next change of the experts in use nobody is left who wants them.
  ASSERT_TRUE(daemon->registry->set_enabled("swap", false).ok());
  ASSERT_TRUE(daemon->registry->set_enabled("swap", true).ok());
  EXPECT_EQ(held(), less);
}

TEST_F(EvictTest, AStreamThatBeganBeforeKeepsThem) {
  auto daemon = serve();
  const Stream without = daemon->run();
  const uint64_t whole = held();
  Unhurried pause;
  auto stream = submit(*daemon->engine, greedy(prompt(3, 9), 12), nullptr, pause.from(2));
  ASSERT_TRUE(stream->wait_tokens(1));
  ASSERT_TRUE(daemon->load(swap()).ok());
  EXPECT_EQ(held(), whole);
  pause.go_on();
  EXPECT_EQ(stream_of(stream->done()), without);
}

TEST_F(EvictTest, WithoutTheirFileTheModuleStaysAndNothingIsLost) {
  auto daemon = serve();
  const Stream without = daemon->run();
  ASSERT_TRUE(daemon->load(swap()).ok());
  const uint64_t less = held();
  const Stream with = daemon->run();
  const uint64_t epoch = daemon->epoch();
  fs::rename(weights(), weights() + ".away");

  const auto refused = daemon->registry->unload("swap");
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.status().code(), Code::kNotFound) << refused.status().to_string();
  EXPECT_THAT(refused.status().message(), HasSubstr("experts of the backbone, to be read again"));
  EXPECT_EQ(daemon->epoch(), epoch);
  EXPECT_EQ(daemon->names(), "swap");
  EXPECT_EQ(held(), less);
  EXPECT_EQ(daemon->run(), with);
  // A bias needs nothing of them.
  EXPECT_TRUE(daemon->registry->set_bias("swap", 0.5f).ok());
  EXPECT_TRUE(daemon->registry->set_bias("swap", 0.0f).ok());

  EngineRequest request = greedy(prompt(3, 9), 12);
  request.modules.exclude = {"swap"};
  const Status failed = submit(*daemon->engine, std::move(request))->error();
  EXPECT_EQ(failed.code(), Code::kUnavailable) << failed.to_string();
  EXPECT_THAT(failed.message(), testing::Not(HasSubstr(temp_.path)));
  EXPECT_EQ(daemon->run(), with);

  fs::rename(weights() + ".away", weights());
  EXPECT_EQ(excluding(*daemon), without);
  ASSERT_TRUE(daemon->registry->unload("swap").ok());
  EXPECT_EQ(daemon->run(), without);
}

TEST_F(EvictTest, ARevocationWaitsForNoFile) {
  auto daemon = serve();
  const Stream without = daemon->run();
  ASSERT_TRUE(daemon->load(swap()).ok());
  (void)held();
  fs::rename(weights(), weights() + ".away");
  ASSERT_TRUE(daemon->registry->revoke("swap").ok());
  EXPECT_EQ(daemon->names(), "");
  const auto request = [&] { return submit(*daemon->engine, greedy(prompt(3, 9), 12)); };
  EXPECT_EQ(request()->error().code(), Code::kUnavailable);
  fs::rename(weights() + ".away", weights());
  EXPECT_EQ(stream_of(request()->done()), without);
}

// The room for what takes its place is that of the revoked module, which goes once nobody uses it.
TEST_F(EvictTest, WithAFullBudgetRequestsWaitForTheRoomOfWhatWasRevoked) {
  for (const bool patient : {true, false}) {
    Daemon::Settings settings;
    settings.engine.experts_room = patient ? 1h : 0ms;
    Ledger ledger({1 << 30, 1 << 30, 0, "memory.budget"});
    settings.ledger = &ledger;
    auto daemon = serve(true, {}, std::move(settings));
    Ledger::Place experts =
        must(ledger.take(MemoryUse::kExperts, "", base_->resident_bytes(), "the experts"));
    std::atomic<int> refused{0};
    base_->residency->set_account({.take =
                                       [&](uint64_t bytes) {
                                         Status status = experts.grow_back(bytes, "experts");
                                         refused += status.ok() ? 0 : 1;
                                         return status;
                                       },
                                   .give_back = [&](uint64_t bytes) { experts.evict(bytes); }});
    const Stream without = daemon->run();
    const uint64_t whole = held();
    ASSERT_TRUE(daemon->load(swap()).ok());
    const uint64_t away = whole - held();
    ASSERT_GT(away, 0u);
    const Ledger::Place rest = must(
        ledger.take(MemoryUse::kScratch, "", ledger.account().free() - away / 2, "all the rest"));
    auto kept = daemon->engine->table();

    ASSERT_TRUE(daemon->registry->revoke("swap").ok());
    const auto stream = submit(*daemon->engine, greedy(prompt(3, 9), 12));
    while (refused < (patient ? 3 : 1)) std::this_thread::sleep_for(1ms);
    if (!patient) {
      EXPECT_EQ(stream->error().code(), Code::kUnavailable);
    }
    EXPECT_EQ(held(), whole - away);
    kept.reset();
    if (!patient) {
      while (ledger.account().free() < away) std::this_thread::sleep_for(1ms);
    }
    EXPECT_EQ(patient ? stream_of(stream->done()) : daemon->run(), without);
    EXPECT_EQ(held(), whole);
    daemon.reset();
    base_.reset();  // before what its account uses
  }
}

// What a canary tries has no part in it that the checkpoint cannot be read.
TEST_F(EvictTest, ADiskThatFailsDoesNotCountAgainstACanary) {
  auto daemon = serve();
  ASSERT_TRUE(daemon->load(swap()).ok());
  LoadArgs args = load_of(other());
  args.canary = 1.0;
  ASSERT_TRUE(daemon->registry->load(args).ok());
  base_->residency->let_go_unused();  // what its probe had read
  (void)held();
  fs::rename(weights(), weights() + ".away");
  EngineRequest request = greedy(prompt(3, 9), 12);
  request.modules.exclude = {"swap"};
  EXPECT_EQ(submit(*daemon->engine, std::move(request))->error().code(), Code::kUnavailable);
  CanaryCounts counts = daemon->engine->canary();
  EXPECT_EQ(counts.canary.requests, 0u);
  EXPECT_EQ(counts.canary.failed, 0u);
  (void)daemon->run();
  counts = daemon->engine->canary();
  EXPECT_EQ(counts.canary.requests, 1u) << "those that it has a part in";
  EXPECT_EQ(counts.canary.failed, 0u);
}

}  // namespace
}  // namespace chimera
