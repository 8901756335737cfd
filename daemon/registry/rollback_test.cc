// How compositions follow one another over rollbacks, revocations, restarts and other backbones.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "daemon/registry/testing.h"

namespace chimera {
namespace {

using namespace testing_support;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> actions(const Result<ChangeReport>& report) {
  std::vector<std::string> out;
  EXPECT_TRUE(report.ok()) << report.status().to_string();
  if (!report.ok()) return out;
  for (const ChangeItem& item : report->changes)
    out.push_back(kChangeActionNames.text(item.action) + " " + item.module);
  return out;
}

TEST_F(RegistryTest, RepeatedRollbackWalksFurtherBack) {
  auto daemon = start();
  for (const char* name : {"legal", "bio", "finance"}) ASSERT_TRUE(daemon->load(at(name)).ok());
  const auto back = [&] { return daemon->registry->rollback(std::nullopt); };
  EXPECT_THAT(actions(back()), ElementsAre("unload finance"));
  EXPECT_THAT(actions(back()), ElementsAre("unload bio"));
  daemon.reset();
  daemon = start();  // a restart is no step
  EXPECT_EQ(daemon->names(), "legal");
  EXPECT_THAT(actions(back()), ElementsAre("unload legal"));
  EXPECT_EQ(back().status().code(), Code::kFailedPrecondition);
  EXPECT_EQ(daemon->names(), "");
  // A change begins anew: the next rollback undoes it.
  ASSERT_TRUE(daemon->load(at("bio")).ok());
  EXPECT_THAT(actions(back()), ElementsAre("unload bio"));
}

TEST_F(RegistryTest, RollbackNeverBringsARevokedModuleBack) {
  auto daemon = start();
  ASSERT_TRUE(daemon->load(at("bio")).ok());    // 2
  ASSERT_TRUE(daemon->load(at("legal")).ok());  // 3
  EXPECT_THAT(actions(daemon->registry->revoke("legal")), ElementsAre("revoke legal"));
  const auto refused = [&](std::optional<uint64_t> epoch) {
    const Status status = daemon->registry->rollback(epoch).status();
    EXPECT_EQ(status.code(), Code::kFailedPrecondition);
    EXPECT_THAT(status.message(), HasSubstr("epoch 3: module legal was revoked"));
    EXPECT_EQ(daemon->names(), "bio");
  };
  refused(std::nullopt);
  refused(3);
  daemon.reset();
  daemon = start();
  refused(std::nullopt);
  ASSERT_TRUE(daemon->registry->rollback(1).ok());  // one without it
  EXPECT_EQ(daemon->names(), "");

  // A drop-in directory does not let it in, a person does.
  LoadArgs dropped;
  dropped.path = at("legal");
  dropped.source = LoadSource::kArrival;
  EXPECT_EQ(daemon->registry->load(dropped).status().code(), Code::kFailedPrecondition);
  const auto again = daemon->load(at("legal"));
  ASSERT_TRUE(again.ok());
  EXPECT_THAT(again->changes[0].detail, HasSubstr("was revoked"));
  ASSERT_TRUE(daemon->registry->unload("legal").ok());
  EXPECT_THAT(actions(daemon->registry->rollback(3)), ElementsAre("load bio", "load legal"));
  EXPECT_TRUE(daemon->registry->load(dropped).ok());
}

// A watched directory is looked at again at every start and SIGHUP.
TEST_F(RegistryTest, WhatWasUnloadedByHandStaysOutUntilItChangesOrSomebodyAsks) {
  auto daemon = start();
  const auto lying = [&](const std::string& name, LoadSource source = LoadSource::kScan) {
    LoadArgs args;
    args.path = at(name);
    args.source = source;
    return daemon->registry->load(args);
  };
  const auto refused = [&] {
    const Status status = lying("legal").status();
    EXPECT_EQ(status.code(), Code::kFailedPrecondition) << status.to_string();
    EXPECT_THAT(status.message(), HasSubstr("module legal was unloaded or replaced by hand"));
    EXPECT_EQ(daemon->names(), "bio");
  };
  EXPECT_THAT(actions(lying("legal")), ElementsAre("load legal"));
  ASSERT_TRUE(lying("bio").ok());
  ASSERT_TRUE(daemon->registry->unload("legal").ok());
  refused();
  daemon.reset();
  daemon = start();
  refused();
  // Somebody moves it in anew, or asks for it.
  EXPECT_THAT(actions(lying("legal", LoadSource::kArrival)), ElementsAre("load legal"));
  ASSERT_TRUE(daemon->registry->unload("legal").ok());
  ASSERT_TRUE(daemon->load(at("legal")).ok());
  EXPECT_THAT(actions(lying("legal")), ElementsAre());
  // Whatever takes it out by hand counts, the directory's own going does not.
  ASSERT_TRUE(daemon->registry->apply(spec_of({at("bio")}), InFlight::kPin).ok());
  refused();
  ASSERT_TRUE(daemon->load(at("legal")).ok());
  ASSERT_TRUE(daemon->registry->rollback(std::nullopt).ok());
  refused();
  ASSERT_TRUE(daemon->load(at("legal")).ok());
  ASSERT_TRUE(daemon->registry->unload_from(at("legal")).ok());
  EXPECT_THAT(actions(lying("legal")), ElementsAre("load legal"));
}

TEST_F(RegistryTest, AnotherVersionInTheDirectoryIsNotWhatWasUnloadedByHand) {
  const auto daemon = start();
  LoadArgs args;
  args.path = copy("legal");
  args.source = LoadSource::kScan;
  ASSERT_TRUE(daemon->registry->load(args).ok());
  ASSERT_TRUE(daemon->load(at("legal")).ok());  // the same content: nothing was replaced
  EXPECT_THAT(actions(daemon->registry->load(args)), ElementsAre("replace legal"));
  ASSERT_TRUE(daemon->registry->unload("legal").ok());
  EXPECT_FALSE(daemon->registry->load(args).ok());
  std::ofstream(args.path + "/module.yaml", std::ios::app) << "# another version\n";
  EXPECT_THAT(actions(daemon->registry->load(args)), ElementsAre("load legal"));
  // Replaced by hand: the directory does not take its place back.
  ASSERT_TRUE(daemon->load(at("legal")).ok());
  EXPECT_FALSE(daemon->registry->load(args).ok());
}

TEST_F(RegistryTest, DisabledModulesCanBeEnabled) {
  const auto daemon = start();
  const Stream plain = daemon->run();
  ASSERT_TRUE(daemon->load(at("legal")).ok());
  const Stream legal = daemon->run();
  EXPECT_THAT(actions(daemon->registry->set_enabled("legal", false)), ElementsAre("disable legal"));
  EXPECT_EQ(daemon->run(), plain);
  EXPECT_EQ(daemon->registry->modules()[0].state, ModuleState::kDisabled);
  EXPECT_THAT(actions(daemon->load(at("legal"))), ElementsAre());  // it stays as it was
  EXPECT_THAT(actions(daemon->registry->set_enabled("legal", true)), ElementsAre("enable legal"));
  EXPECT_EQ(daemon->run(), legal);
  EXPECT_THAT(actions(daemon->registry->set_enabled("legal", true)), ElementsAre());
  EXPECT_EQ(daemon->registry->set_enabled("lgal", true).status().code(), Code::kNotFound);
}

TEST_F(RegistryTest, EveryBackboneKeepsItsOwnComposition) {
  std::string digest;
  {
    const auto daemon = start();
    ASSERT_TRUE(daemon->load(at("legal")).ok());  // 2
    digest = daemon->digest();
  }
  Daemon::Settings other;
  other.fingerprint = "sha256:other";
  {
    const auto daemon = start(other);
    EXPECT_EQ(daemon->names(), "");
    EXPECT_EQ(daemon->epoch(), 3u);  // epochs of one directory count on
    EXPECT_EQ(daemon->registry->history().size(), 1u);
    EXPECT_EQ(daemon->registry->rollback(std::nullopt).status().code(), Code::kFailedPrecondition);
    EXPECT_THAT(daemon->registry->rollback(2).status().message(), HasSubstr("found backbone"));
  }
  const auto daemon = start();
  EXPECT_EQ(daemon->digest(), digest);
  EXPECT_EQ(daemon->registry->history().size(), 3u);
  ASSERT_TRUE(daemon->registry->rollback(std::nullopt).ok());
  EXPECT_EQ(daemon->names(), "");
}

}  // namespace
}  // namespace chimera
