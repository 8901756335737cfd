// Changes that load nothing overtake those that load, and a load is made to what it finds when it
// ends; who asked for one may give it up.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <future>
#include <optional>
#include <thread>

#include "daemon/registry/testing.h"

namespace chimera {
namespace {

using namespace testing_support;
using testing::AnyOf;
using testing::Contains;
using testing::ElementsAre;

/// A load that stands still the `at`-th time that it is asked whether it is still wanted: 1 before
/// anything, 2 before the weights are read, 3 before the probe, 4 before the publication.
class HeldLoad {
 public:
  HeldLoad(const Daemon& daemon, LoadArgs args, int at) {
    const auto hold = [this, at]() -> Status {
      if (++asked_ != at) return {};
      reached_.set_value();
      go_.get_future().wait();
      return cancel_ ? Status(Code::kCancelled, "nobody wants it") : Status();
    };
    daemon.registry->ask(std::move(args), {0, hold},
                         [this](Result<ChangeReport> report) { done_.set_value(report); });
    reached_.get_future().wait();
  }
  HeldLoad(const Daemon& daemon, const std::string& path, int at = 3)
      : HeldLoad(daemon, args_of(path), at) {}
  ~HeldLoad() {
    if (!ended_) (void)end();
  }
  HeldLoad(const HeldLoad&) = delete;
  HeldLoad& operator=(const HeldLoad&) = delete;

  static LoadArgs args_of(const std::string& path) {
    LoadArgs args;
    args.path = path;
    return args;
  }
  void go_on() { go_.set_value(), ended_ = true; }
  Result<ChangeReport> answer() { return done_.get_future().get(); }
  Result<ChangeReport> end(bool cancel = false) {
    cancel_ = cancel;
    go_on();
    return answer();
  }

 private:
  std::atomic<int> asked_{0};
  std::atomic<bool> cancel_{false};
  bool ended_ = false;
  std::promise<void> reached_, go_;
  std::promise<Result<ChangeReport>> done_;
};

/// The answer of a change, when it comes.
class Asked {
 public:
  Asked(const Daemon& daemon, ChangeRequest request) : answer_(promise_.get_future()) {
    daemon.registry->ask(std::move(request), {},
                         [this](Result<ChangeReport> report) { promise_.set_value(report); });
  }
  bool waits() const {
    return answer_.wait_for(std::chrono::seconds(0)) != std::future_status::ready;
  }
  Result<ChangeReport> answer() { return answer_.get(); }

 private:
  std::promise<Result<ChangeReport>> promise_;
  std::future<Result<ChangeReport>> answer_;
};

class OvertakingTest : public RegistryTest {
 protected:
  static std::vector<ModuleState> states(const Daemon& daemon) {
    std::vector<ModuleState> out;
    for (const ModuleStatus& module : daemon.registry->modules()) out.push_back(module.state);
    return out;
  }
  /// Another version of a module, in a directory of its own.
  std::string next_version(const std::string& name) {
    const std::string dir = copy(name, name + "-next");
    edit(dir + "/module.yaml", must(read_manifest(dir)).version, "9.9.9");
    return dir;
  }
};

TEST_F(OvertakingTest, ChangesThatLoadNothingDoNotWaitForALoadAndHoldForIt) {
  auto daemon = start();
  ASSERT_TRUE(daemon->load(at("legal")).ok());
  ASSERT_TRUE(daemon->load(at("finance")).ok());
  HeldLoad bio(*daemon, at("bio"));
  ASSERT_TRUE(daemon->registry->set_bias("legal", 0.5f).ok());
  ASSERT_TRUE(daemon->registry->set_enabled("legal", false).ok());
  ASSERT_TRUE(daemon->registry->unload("finance").ok());
  EXPECT_THAT(states(*daemon), Contains(ModuleState::kLoading)) << "they waited for the load";
  const auto report = bio.end();
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  ASSERT_EQ(report->changes.size(), 1u);
  EXPECT_EQ(report->changes[0].module, "bio");
  const Composition now = daemon->registry->composition();
  EXPECT_EQ(daemon->names(), "legal,bio");
  EXPECT_EQ(now.find("legal")->bias, 0.5f);
  EXPECT_FALSE(now.find("legal")->enabled);
}

TEST_F(OvertakingTest, AnEditOfWhatIsReplacedHoldsAtOnceAndForTheReplacement) {
  auto daemon = start();
  ASSERT_TRUE(daemon->load(at("legal")).ok());
  LoadArgs args = HeldLoad::args_of(next_version("legal"));
  args.bias = 1.0f;  // asked for before the edit
  HeldLoad replacement(*daemon, args, 3);
  ASSERT_TRUE(daemon->registry->set_bias("legal", -0.25f).ok());
  EXPECT_EQ(daemon->registry->composition().find("legal")->bias, -0.25f);
  ASSERT_TRUE(replacement.end().ok());
  const Composition now = daemon->registry->composition();
  EXPECT_EQ(now.find("legal")->version, "9.9.9");
  EXPECT_EQ(now.find("legal")->bias, -0.25f);
}

TEST_F(OvertakingTest, WhatConcernsAModuleOnItsWayInComesAfterIt) {
  auto daemon = start();
  HeldLoad legal(*daemon, at("legal"));
  Asked bias(*daemon, EditArgs{"legal", {std::nullopt, 0.5f}});
  Asked unload(*daemon, UnloadArgs{"legal"});
  Asked again(*daemon, HeldLoad::args_of(at("legal")));
  EXPECT_EQ(daemon->registry->set_bias("bio", 0.5f).status().code(), Code::kNotFound) << "at once";
  EXPECT_TRUE(bias.waits() && unload.waits() && again.waits());
  ASSERT_TRUE(legal.end().ok());
  for (Asked* one : {&bias, &unload, &again}) {
    const auto report = one->answer();
    EXPECT_TRUE(report.ok()) << report.status().to_string();
  }
  EXPECT_EQ(daemon->names(), "legal");
  EXPECT_EQ(daemon->registry->composition().find("legal")->bias, 0.0f);
}

TEST_F(OvertakingTest, AnUnloadOfWhatIsReplacedComesAfterTheReplacement) {
  auto daemon = start();
  ASSERT_TRUE(daemon->load(at("legal")).ok());
  HeldLoad replacement(*daemon, next_version("legal"));
  Asked unload(*daemon, UnloadArgs{"legal"});
  ASSERT_TRUE(replacement.end().ok());
  ASSERT_TRUE(unload.answer().ok());
  EXPECT_EQ(daemon->names(), "");
}

TEST_F(OvertakingTest, AWholeCompositionComesAfterTheLoadsBeforeItAndBeforeTheEditsAfterIt) {
  auto daemon = start();
  ASSERT_TRUE(daemon->load(at("legal")).ok());
  HeldLoad bio(*daemon, at("bio"));
  CompositionSpec spec = spec_of({at("legal"), at("finance")});
  Asked apply(*daemon, ApplyArgs{spec, InFlight::kPin, nullptr});
  ASSERT_TRUE(daemon->registry->set_bias("legal", 0.5f).ok()) << "it is there to be edited";
  Asked finance(*daemon, EditArgs{"finance", {false, std::nullopt}});
  Asked load(*daemon, HeldLoad::args_of(at("bio")));
  EXPECT_TRUE(apply.waits() && finance.waits() && load.waits());
  ASSERT_TRUE(bio.end().ok());
  ASSERT_TRUE(apply.answer().ok());
  ASSERT_TRUE(finance.answer().ok());
  ASSERT_TRUE(load.answer().ok());
  const Composition now = daemon->registry->composition();
  EXPECT_EQ(daemon->names(), "legal,finance,bio");
  EXPECT_EQ(now.find("legal")->bias, 0.5f) << "asked for after the composition";
  EXPECT_FALSE(now.find("finance")->enabled);
}

TEST_F(OvertakingTest, ARevocationStopsALoadOfItsModuleAndNoOther) {
  auto daemon = start();
  ASSERT_TRUE(daemon->load(at("legal")).ok());
  ASSERT_TRUE(daemon->load(at("bio")).ok());
  {
    HeldLoad finance(*daemon, at("finance"));
    ASSERT_TRUE(daemon->registry->revoke("bio").ok());
    ASSERT_TRUE(finance.end().ok());
  }
  HeldLoad replacement(*daemon, next_version("legal"));
  ASSERT_TRUE(daemon->registry->revoke("legal").ok());
  EXPECT_EQ(replacement.end().status().code(), Code::kUnavailable);
  EXPECT_EQ(daemon->names(), "finance") << "it was asked for before the revocation";
  ASSERT_TRUE(daemon->load(at("legal")).ok());
}

TEST_F(OvertakingTest, ARevocationCountsFromWhenItWasAskedFor) {
  auto daemon = start();
  HeldLoad finance(*daemon, at("finance"));
  Asked waiting(*daemon, HeldLoad::args_of(at("bio")));  // behind it, or beside it
  const auto report = daemon->registry->revoke("finance");
  ASSERT_TRUE(report.ok()) << "it never was in: " << report.status().to_string();
  EXPECT_EQ(report->changes.size(), 1u);
  EXPECT_EQ(finance.end().status().code(), Code::kUnavailable);
  ASSERT_TRUE(waiting.answer().ok());

  // A load whose request reached the registry late, and is older than the revocation all the same.
  const uint64_t old = daemon->registry->take_turn();
  ASSERT_TRUE(daemon->registry->revoke("bio").ok());
  std::promise<Status> late;
  daemon->registry->ask(HeldLoad::args_of(at("bio")), {old, nullptr},
                        [&](const Result<ChangeReport>& r) { late.set_value(r.status()); });
  EXPECT_EQ(late.get_future().get().code(), Code::kUnavailable);
  EXPECT_EQ(daemon->names(), "");
  EXPECT_TRUE(daemon->load(at("bio")).ok());
}

TEST_F(OvertakingTest, WhatComesUnaskedStaysOutWhenItsModuleIsRevokedOnTheWay) {
  auto daemon = start();
  ASSERT_TRUE(daemon->load(at("legal")).ok());
  LoadArgs args = HeldLoad::args_of(next_version("legal"));
  args.source = LoadSource::kArrival;
  HeldLoad bio(*daemon, at("bio"));
  ASSERT_TRUE(daemon->registry->revoke("legal").ok());
  Asked arrival(*daemon, args);
  ASSERT_TRUE(bio.end().ok());
  EXPECT_EQ(arrival.answer().status().code(), Code::kFailedPrecondition);
  EXPECT_EQ(daemon->names(), "bio");
}

TEST_F(OvertakingTest, ALoadThatNobodyWantsAnyMoreChangesNothing) {
  auto daemon = start();
  ASSERT_TRUE(daemon->load(at("legal")).ok());
  const std::string digest = daemon->digest();
  for (int when = 1; when <= 4; ++when) {
    HeldLoad bio(*daemon, at("bio"), when);
    const Status status = bio.end(/*cancel=*/true).status();
    EXPECT_EQ(status.code(), Code::kCancelled) << when << ": " << status.to_string();
    EXPECT_EQ(daemon->digest(), digest);
    EXPECT_THAT(states(*daemon), ElementsAre(ModuleState::kActive)) << when;
  }
  EXPECT_TRUE(daemon->load(at("bio")).ok());
}

TEST_F(OvertakingTest, StopAnswersEverythingThatWaits) {
  auto daemon = start();
  HeldLoad legal(*daemon, at("legal"));
  Asked bias(*daemon, EditArgs{"legal", {std::nullopt, 0.5f}});
  Asked apply(*daemon, ApplyArgs{spec_of({at("bio")}), InFlight::kPin, nullptr});
  Asked after(*daemon, HeldLoad::args_of(at("finance")));
  std::thread stopper([&] { daemon->registry->stop(); });
  legal.go_on();
  stopper.join();
  EXPECT_FALSE(apply.waits() || bias.waits() || after.waits());
  // Whether they were through before the end came, nobody can say.
  EXPECT_THAT(after.answer().status().code(), AnyOf(Code::kOk, Code::kUnavailable));
  (void)legal.answer();
}

/// Edits of which the first stands still, just before it is made, until all have been asked for.
class EditsAtOnce {
 public:
  explicit EditsAtOnce(const Daemon& daemon) : daemon_(daemon) {}
  ~EditsAtOnce() { gate_.open(); }

  void ask(const std::string& name, const ModuleEdit& edit) {
    auto answer = std::make_shared<std::promise<Result<ChangeReport>>>();
    answers_.push_back(answer->get_future());
    const bool first = answers_.size() == 1;
    Asker asker;
    if (first) asker.still_wanted = [this] { return gate_.pass(); };
    daemon_.registry->ask(EditArgs{name, edit}, asker, [answer](Result<ChangeReport> report) {
      answer->set_value(std::move(report));
    });
    if (first) {
      EXPECT_TRUE(gate_.reached_by(1));
    }
  }
  std::vector<Result<ChangeReport>> answers() {
    gate_.open();
    std::vector<Result<ChangeReport>> out;
    for (auto& answer : answers_) out.push_back(answer.get());
    return out;
  }

 private:
  const Daemon& daemon_;
  Gate gate_;
  std::vector<std::future<Result<ChangeReport>>> answers_;
};

/// How many times the state was written: its files are numbered.
uint64_t generation(const std::string& state) {
  uint64_t newest = 0;
  for (const auto& file : fs::directory_iterator(state)) {
    const std::string name = file.path().filename();
    if (name.starts_with("state-"))
      newest = std::max<uint64_t>(newest, std::stoull(name.substr(6)));
  }
  return newest;
}

TEST_F(OvertakingTest, BiasesThatComeWhileOneIsSetAreSetTogetherAndEachIsAnEpoch) {
  auto daemon = start();
  ASSERT_TRUE(daemon->load(at("legal")).ok());
  ASSERT_TRUE(daemon->load(at("bio")).ok());
  const uint64_t before = daemon->epoch();
  const uint64_t written = generation(state());
  constexpr int kEdits = 40;
  EditsAtOnce edits(*daemon);
  for (int i = 1; i <= kEdits; ++i)
    edits.ask(i % 2 == 0 ? "bio" : "legal", {std::nullopt, 0.01f * static_cast<float>(i)});
  edits.ask("bio", {std::nullopt, 0.01f * kEdits});  // what it is then
  edits.ask("nobody", {std::nullopt, 1.0f});
  edits.ask("legal", {std::nullopt, 7.0f});
  const auto answers = edits.answers();
  for (size_t i = 0; i < kEdits; ++i) {
    ASSERT_TRUE(answers[i].ok()) << answers[i].status().to_string();
    EXPECT_EQ(answers[i]->epoch, before + 1 + i);
    ASSERT_EQ(answers[i]->changes.size(), 1u);
    EXPECT_EQ(answers[i]->changes[0].module, i % 2 == 0 ? "legal" : "bio");
  }
  EXPECT_TRUE(answers[kEdits]->changes.empty());
  EXPECT_EQ(answers[kEdits]->epoch, before + kEdits);
  EXPECT_EQ(answers[kEdits + 1].status().code(), Code::kNotFound);
  EXPECT_EQ(answers[kEdits + 2]->epoch, before + kEdits + 1);
  EXPECT_EQ(daemon->epoch(), before + kEdits + 1);
  EXPECT_EQ(generation(state()), written + 2) << "the first one, and then all that had come";

  // Every one of them is what it says, in the history and after a restart.
  const auto history = daemon->registry->history();
  for (size_t i = 0; i < kEdits; ++i) {
    const auto record = std::find_if(history.begin(), history.end(),
                                     [&](const auto& r) { return r.epoch == answers[i]->epoch; });
    ASSERT_NE(record, history.end());
    EXPECT_EQ(record->composition.digest(), answers[i]->composition);
    EXPECT_EQ(record->composition.find(i % 2 == 0 ? "legal" : "bio")->bias,
              0.01f * static_cast<float>(i + 1));
  }
  const std::string digest = daemon->digest();
  daemon.reset();
  EXPECT_EQ(start()->digest(), digest);
}

TEST_F(OvertakingTest, ASwitchThatFindsNoFreeEpochTakesNoBiasWithIt) {
  Daemon::Settings settings;
  settings.engine.max_live_epochs = 1;
  settings.publish_timeout = std::chrono::milliseconds(100);
  auto daemon = start(std::move(settings));
  ASSERT_TRUE(daemon->load(at("legal")).ok());
  ASSERT_TRUE(daemon->load(at("bio")).ok());
  RequestId id = 0;
  const auto stream = submit(*daemon->engine, greedy(prompt(1, 5), 1900), &id, slowly);
  ASSERT_TRUE(stream->wait_tokens(1));
  EditsAtOnce edits(*daemon);
  edits.ask("legal", {std::nullopt, 0.25f});
  edits.ask("legal", {std::nullopt, 0.5f});
  edits.ask("bio", {false, std::nullopt});
  edits.ask("legal", {std::nullopt, 0.75f});
  const auto answers = edits.answers();
  for (const size_t i : {0u, 1u, 3u})
    EXPECT_TRUE(answers[i].ok()) << answers[i].status().to_string();
  EXPECT_EQ(answers[2].status().code(), Code::kFailedPrecondition);
  const Composition now = daemon->registry->composition();
  EXPECT_EQ(now.find("legal")->bias, 0.75f);
  EXPECT_TRUE(now.find("bio")->enabled);
  EXPECT_EQ(daemon->digest(), now.digest());
  daemon->engine->cancel(id);
}

}  // namespace
}  // namespace chimera
