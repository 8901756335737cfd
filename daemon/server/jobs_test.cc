// Loads over the wire: answered at once or waited for, with progress, and given up with the client.
#include <gtest/gtest.h>

#include <thread>

#include "base/json/testing.h"
#include "daemon/registry/testing.h"
#include "daemon/server/calls.h"

namespace chimera {
namespace {

using namespace testing_support;

/// The handlers over a daemon's inside, without sockets.
class LoadsOverTheWire : public RegistryTest {
 protected:
  void SetUp() override {
    RegistryTest::SetUp();
    if (IsSkipped()) return;
    daemon_ = start();
    ServerOptions options;
    options.config = &config_;
    options.engine = daemon_->engine.get();
    options.registry = daemon_->registry.get();
    options.model = Fixture::get().loaded();
    context_ = std::make_unique<CallContext>(std::move(options));
  }
  void TearDown() override {
    gate_.open();
    if (daemon_ != nullptr) daemon_->registry->stop();
    context_.reset();
  }

  std::shared_ptr<Live> live(bool one_answer = false) {
    Peer peer;
    peer.port = 1;
    peer.delimiter = one_answer;
    return std::make_shared<Live>("r1", peer, 256, ready_);
  }
  std::shared_ptr<Live> ask(const std::string& module, wire::Waiting waiting) {
    wire::Load call;
    call.path = at(module);
    call.waiting = waiting;
    auto out = live();
    handle_call(*context_, out, call);
    return out;
  }
  static bool eventually(const std::function<bool()>& condition) {
    const auto end = std::chrono::steady_clock::now() + kPatience;
    while (!condition()) {
      if (std::chrono::steady_clock::now() > end) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return true;
  }
  /// The next message that `from` gets; its JSON.
  static Json next(Live& from) {
    std::optional<Answer> answer;
    EXPECT_TRUE(eventually([&] { return (answer = from.next()).has_value(); }));
    return answer ? json_of(answer->body) : Json();
  }
  /// A load of `module` that stands still until the gate opens; what is asked of it waits behind.
  void hold(const std::string& module) {
    daemon_->registry->ask(load_of(at(module)), {0, [this] { return gate_.pass(); }},
                           [](const Result<ChangeReport>&) {});
    ASSERT_TRUE(gate_.reached_by(1));
  }
  JobStatus last_job() const { return daemon_->registry->jobs().back(); }

  DeploymentConfig config_;
  std::shared_ptr<Ready> ready_ = std::make_shared<Ready>();
  Gate gate_;
  std::unique_ptr<Daemon> daemon_;
  std::unique_ptr<CallContext> context_;
};

TEST_F(LoadsOverTheWire, WithoutWaitingTheJobIsAnsweredAtOnceAndRecordedWhenItEnds) {
  hold("legal");
  auto request = live();
  std::atomic<int> recorded{0};
  request->set_recorder([&](const Status& outcome, const std::function<void()>& then) {
    recorded = outcome.ok() ? 1 : -1;
    then();
  });
  wire::Load call;
  call.path = at("bio");
  call.waiting.wait = false;
  CompositionSpec both = spec_of({at("legal"), at("bio")});
  // Behind a composition, so that it cannot be done before it is looked at.
  daemon_->registry->ask(ApplyArgs{both, InFlight::kPin, nullptr}, {},
                         [](const Result<ChangeReport>&) {});
  handle_call(*context_, request, call);
  const Json answer = next(*request);
  EXPECT_EQ(answer.value("event", ""), "done");
  EXPECT_EQ(answer.value("epoch", uint64_t{0}), 1u);
  const std::string job = answer.value("job", "");
  EXPECT_EQ(job, last_job().id);
  EXPECT_EQ(recorded, 0) << "nothing has been done yet";

  auto listing = live();
  handle_call(*context_, listing, wire::Modules{});
  const Json listed = next(*listing);
  const Json& jobs = listed["jobs"];
  ASSERT_EQ(jobs.size(), 3u);
  EXPECT_EQ(jobs[2].value("id", ""), job);
  EXPECT_EQ(jobs[2].value("phase", ""), "waiting");
  EXPECT_EQ(jobs[1].value("call", ""), "apply");

  gate_.open();
  EXPECT_TRUE(eventually([&] { return recorded != 0; }));
  EXPECT_EQ(recorded, 1);
  EXPECT_EQ(last_job().phase, JobPhase::kDone);
  EXPECT_EQ(daemon_->names(), "legal,bio");
}

TEST_F(LoadsOverTheWire, WhatIsWrongIsFoundInTheListOfJobs) {
  wire::Load call;
  call.path = "/nowhere";
  call.waiting.wait = false;
  auto request = live();
  handle_call(*context_, request, call);
  (void)next(*request);  // the job, or the error if that was faster
  ASSERT_TRUE(eventually([&] { return last_job().phase == JobPhase::kFailed; }));
  auto listing = live();
  handle_call(*context_, listing, wire::Modules{});
  const Json listed = next(*listing);
  EXPECT_EQ(listed["jobs"][0]["error"].value("code", ""), "not_found");
}

TEST_F(LoadsOverTheWire, AClientThatGoesAwayCancelsItsLoadUnlessThatIsDetached) {
  hold("legal");
  const auto gone = ask("legal", {});
  ASSERT_TRUE(eventually([&] { return daemon_->registry->jobs().size() == 2; }));
  gone->abandon();
  EXPECT_TRUE(eventually([&] {
    return daemon_->registry->jobs()[0].phase == JobPhase::kCancelled;
  })) << "a load of nobody goes on";

  wire::Waiting detached;
  detached.detach = true;
  const auto left = ask("bio", detached);
  left->abandon();
  EXPECT_TRUE(eventually([&] { return daemon_->names() == "bio"; })) << "it was detached";
  gate_.open();
  EXPECT_TRUE(eventually([&] { return daemon_->names() == "bio,legal"; }));
}

TEST_F(LoadsOverTheWire, AClientThatIsGoneBeforeItsLoadIsTakenUpCancelsIt) {
  hold("legal");
  wire::Load call;
  call.path = at("legal");
  auto request = live();
  request->abandon();
  handle_call(*context_, request, call);
  EXPECT_TRUE(eventually([&] {
    const auto jobs = daemon_->registry->jobs();
    return jobs.size() == 2 && jobs[0].phase == JobPhase::kCancelled;
  }));
}

TEST_F(LoadsOverTheWire, ProgressIsToldUntilTheAnswer) {
  wire::Waiting waiting;
  waiting.progress = true;
  const auto request = ask("legal", waiting);
  Json before, event = next(*request);
  for (; event.value("event", "") == "progress"; event = next(*request)) before = event;
  EXPECT_EQ(event.value("event", ""), "done");
  EXPECT_EQ(event["changes"].size(), 1u);
  // The newest that waits takes the place of an older one; the last is there in any case.
  EXPECT_EQ(before.value("id", ""), "r1");
  const Json& job = before["job"];
  EXPECT_EQ(job.value("phase", ""), "publishing");
  EXPECT_EQ(job.value("bytes", uint64_t{1}), job.value("bytes_total", uint64_t{2}));
  EXPECT_EQ(job["modules"][0], Json("legal"));

  const auto quiet = ask("bio", {});
  EXPECT_EQ(next(*quiet).value("event", ""), "done") << "nobody asked for progress";

  wire::Load call;
  call.path = at("finance");
  call.waiting = waiting;
  auto once = live(/*one_answer=*/true);
  handle_call(*context_, once, call);
  EXPECT_EQ(next(*once).value("event", ""), "done") << "a REQ socket takes one answer";
}

}  // namespace
}  // namespace chimera
