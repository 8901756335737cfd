// Changes that load are jobs: what they tell of themselves, how they are given up, and that they
// run side by side.
#include "daemon/registry/jobs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <thread>

#include "base/threads/progress.h"
#include "daemon/registry/reading_turns.h"
#include "daemon/registry/testing.h"

namespace chimera {
namespace {

using namespace testing_support;
using testing::ElementsAre;

/// A change whose progress is kept; `asked` is called whenever it is asked whether it is wanted.
class Task {
 public:
  Task(const Daemon& daemon, ChangeRequest request, std::function<Status()> asked = nullptr,
       std::function<void(const JobStatus&)> told = nullptr)
      : answer_(promise_.get_future()) {
    const auto note = [this, told = std::move(told)](const JobStatus& job) {
      {
        const MutexLock lock(mutex_);
        told_.push_back(job);
      }
      if (told) told(job);
    };
    id_ = daemon.registry->ask(
        std::move(request), {0, std::move(asked), note},
        [this](Result<ChangeReport> report) { promise_.set_value(std::move(report)); });
  }
  const std::string& id() const { return id_; }
  bool ended() const {
    return answer_.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
  }
  Result<ChangeReport> answer() { return answer_.get(); }
  std::vector<JobStatus> told() {
    const MutexLock lock(mutex_);
    return told_;
  }

 private:
  Mutex mutex_;
  std::vector<JobStatus> told_ GUARDED_BY(mutex_);
  std::string id_;
  std::promise<Result<ChangeReport>> promise_;
  std::future<Result<ChangeReport>> answer_;
};

class JobsTest : public RegistryTest {
 protected:
  static JobStatus status_of(const Daemon& daemon, const std::string& id) {
    for (const JobStatus& job : daemon.registry->jobs()) {
      if (job.id == id) return job;
    }
    ADD_FAILURE() << "no job " << id;
    return {};
  }
};

TEST_F(JobsTest, ALoadTellsHowFarItIs) {
  auto daemon = start();
  Task load(*daemon, load_of(at("legal")));
  const auto report = load.answer();
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  const auto told = load.told();
  std::vector<JobPhase> phases;
  for (const JobStatus& job : told) {
    EXPECT_EQ(job.id, load.id());
    EXPECT_EQ(job.call, "load");
    EXPECT_THAT(job.modules, ElementsAre("legal"));
    EXPECT_LE(job.bytes, job.bytes_total);
    if (phases.empty() || phases.back() != job.phase) phases.push_back(job.phase);
  }
  EXPECT_THAT(phases, ElementsAre(JobPhase::kReading, JobPhase::kProbing, JobPhase::kPublishing));
  const uint64_t size = fs::file_size(at("legal") + "/weights.safetensors");
  EXPECT_EQ(told.back().bytes, size);
  EXPECT_EQ(told.back().bytes_total, size);

  const JobStatus after = status_of(*daemon, load.id());
  EXPECT_EQ(after.phase, JobPhase::kDone);
  EXPECT_EQ(after.epoch, report->epoch);
  EXPECT_TRUE(after.outcome.ok());

  EXPECT_FALSE(daemon->load("/nowhere").ok());
  const auto jobs = daemon->registry->jobs();
  ASSERT_EQ(jobs.size(), 2u);
  EXPECT_EQ(jobs[1].phase, JobPhase::kFailed);
  EXPECT_EQ(jobs[1].outcome.code(), Code::kNotFound) << jobs[1].outcome.to_string();
  Task bias(*daemon, EditArgs{"legal", {std::nullopt, 0.5f}});
  EXPECT_EQ(bias.id(), "") << "it loads nothing";
  ASSERT_TRUE(bias.answer().ok());
}

TEST_F(JobsTest, AModuleThatIsLoadedShowsItsJob) {
  auto daemon = start();
  Gate gate;
  std::atomic<int> asked{0};
  // The third time is between reading and probing.
  Task load(*daemon, load_of(at("legal")), [&] { return ++asked == 3 ? gate.pass() : Status(); });
  ASSERT_TRUE(gate.reached_by(1));
  const auto modules = daemon->registry->modules();
  ASSERT_EQ(modules.size(), 1u);
  EXPECT_EQ(modules[0].state, ModuleState::kLoading);
  ASSERT_TRUE(modules[0].job.has_value());
  EXPECT_EQ(modules[0].job->id, load.id());
  EXPECT_EQ(modules[0].job->bytes, modules[0].job->bytes_total);
  gate.open();
  ASSERT_TRUE(load.answer().ok());
  EXPECT_FALSE(daemon->registry->modules()[0].job.has_value());
}

TEST_F(JobsTest, ACancelledJobEndsAtItsNextStepAndChangesNothing) {
  auto daemon = start();
  const std::string digest = daemon->digest();
  for (int when = 1; when <= 4; ++when) {
    Gate gate;
    std::atomic<int> asked{0};
    Task load(*daemon, load_of(at("legal")),
              [&] { return ++asked == when ? gate.pass() : Status(); });
    ASSERT_TRUE(gate.reached_by(1)) << when;
    EXPECT_TRUE(daemon->registry->cancel(load.id()));
    gate.open();
    EXPECT_EQ(load.answer().status().code(), Code::kCancelled) << when;
    EXPECT_EQ(status_of(*daemon, load.id()).phase, JobPhase::kCancelled);
    EXPECT_FALSE(daemon->registry->cancel(load.id())) << "it has ended";
    EXPECT_TRUE(daemon->registry->modules().empty());
    EXPECT_EQ(daemon->digest(), digest);
  }
  EXPECT_FALSE(daemon->registry->cancel("job-4711"));
  EXPECT_TRUE(daemon->load(at("legal")).ok());
}

TEST_F(JobsTest, ReadingIsGivenUpInTheMiddle) {
  auto daemon = start();
  Task load(*daemon, load_of(at("legal")), nullptr, [&](const JobStatus& job) {
    if (job.phase == JobPhase::kReading) daemon->registry->cancel(job.id);
  });
  EXPECT_EQ(load.answer().status().code(), Code::kCancelled);
  EXPECT_EQ(daemon->loader->contents_hashed(), 0u);
  EXPECT_EQ(daemon->loader->probes_run(), 0u);
}

TEST_F(JobsTest, AJobThatWaitsIsCancelledAtOnce) {
  auto daemon = start();
  Gate gate;
  Task first(*daemon, load_of(at("legal")), [&] { return gate.pass(); });
  ASSERT_TRUE(gate.reached_by(1));
  Task second(*daemon, load_of(at("legal")));
  EXPECT_FALSE(second.ended());
  EXPECT_EQ(status_of(*daemon, second.id()).phase, JobPhase::kWaiting);
  EXPECT_TRUE(daemon->registry->cancel(second.id()));
  EXPECT_EQ(second.answer().status().code(), Code::kCancelled) << "behind one that stands still";
  EXPECT_FALSE(first.ended());
  gate.open();
  ASSERT_TRUE(first.answer().ok());
  EXPECT_EQ(daemon->names(), "legal");
}

TEST_F(JobsTest, LoadsRunSideBySideAndEachIsMadeToWhatItFinds) {
  auto daemon = start();
  Gate gate;
  const auto hold = [&] { return gate.pass(); };
  Task legal(*daemon, load_of(at("legal")), hold), bio(*daemon, load_of(at("bio")), hold),
      finance(*daemon, load_of(at("finance")), hold);
  EXPECT_TRUE(gate.reached_by(3)) << "one waited for another";
  gate.open();
  for (Task* one : {&legal, &bio, &finance}) {
    const auto report = one->answer();
    ASSERT_TRUE(report.ok()) << report.status().to_string();
    EXPECT_EQ(report->changes.size(), 1u);
  }
  EXPECT_EQ(daemon->registry->composition().modules.size(), 3u);
  EXPECT_EQ(daemon->epoch(), 4u) << "one each";
}

TEST_F(JobsTest, ACompositionLoadsItsModulesSideBySide) {
  const CompositionSpec spec = spec_of({at("legal"), at("bio"), at("finance")});
  auto daemon = start();
  for (const bool back : {false, true}) {
    Gate gate;
    std::atomic<int> asked{0};
    // The first time is before anything.
    const auto hold = [&] { return ++asked == 1 ? Status() : gate.pass(); };
    Task change(*daemon,
                back ? ChangeRequest(RollbackArgs{2})
                     : ChangeRequest(ApplyArgs{spec, InFlight::kPin, nullptr}),
                hold);
    EXPECT_TRUE(gate.reached_by(3)) << "one module waited for another";
    gate.open();
    const auto report = change.answer();
    ASSERT_TRUE(report.ok()) << report.status().to_string();
    EXPECT_EQ(daemon->names(), "legal,bio,finance") << "in the order of the composition";
    ASSERT_TRUE(daemon->registry->apply(spec_of({}), InFlight::kPin).ok());
    // What is still in memory would not be loaded again.
    const auto end = std::chrono::steady_clock::now() + kPatience;
    while (!daemon->registry->modules().empty() && std::chrono::steady_clock::now() < end) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    ASSERT_TRUE(daemon->registry->modules().empty());
  }
}

TEST(ReadingTurns, OnesThatMustBeAloneAre) {
  ReadingTurns turns(std::chrono::hours(1));
  std::atomic<int> beside{0}, alone{0};
  std::atomic<bool> wrong{false};
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&, by_itself = i % 4 == 0] {
      for (int n = 0; n < 500; ++n) {
        const ReadingTurn turn(&turns, by_itself, "legal");
        std::atomic<int>& mine = by_itself ? alone : beside;
        const int now = ++mine;
        if (by_itself ? now > 1 || beside > 0 : alone > 0) wrong = true;
        --mine;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_FALSE(wrong);
  const ReadingTurn one(&turns, false, "bio"), other(&turns, false, "legal");  // does not hang
}

TEST(ReadingTurns, WhoDoesNotComeBackTakesNobodyAlong) {
  ReadingTurns turns(std::chrono::milliseconds(1));
  const ReadingTurn hangs(&turns, true, "hangs");
  const ReadingTurn inside(&turns, true, "finance");
  EXPECT_EQ(inside.status().code(), Code::kUnavailable);
  EXPECT_THAT(inside.status().message(),
              testing::HasSubstr("module finance: module hangs has not been loaded inside"));
  const ReadingTurn legal(&turns, false, "legal"), bio(&turns, false, "bio");
  EXPECT_TRUE(legal.status().ok());
  EXPECT_TRUE(bio.status().ok());
}

TEST(ReadingTurns, WhoIsGivenUpWaitsNoMore) {
  ReadingTurns turns(std::chrono::hours(1));
  const ReadingTurn slow(&turns, true, "slow");
  Progress progress;
  progress.give_up();
  const ProgressScope scope(&progress);
  for (const bool alone : {false, true}) {
    const ReadingTurn turn(&turns, alone, "legal");
    EXPECT_EQ(turn.status().code(), Code::kCancelled);
  }
}

TEST_F(JobsTest, TheLastOnesAreRemembered) {
  Jobs jobs;
  for (uint64_t turn = 1; turn <= Jobs::kRemembered + 2; ++turn) {
    const auto job =
        std::make_shared<Job>(turn, "load", std::vector<std::string>{}, nullptr, nullptr);
    jobs.add(job);
    EXPECT_EQ(jobs.find(job->id()), job);
    jobs.end(job, Status(Code::kInternal, "x"), 0);
    EXPECT_EQ(jobs.find(job->id()), nullptr);
  }
  const auto list = jobs.list();
  ASSERT_EQ(list.size(), Jobs::kRemembered);
  EXPECT_EQ(list.front().id, "job-3");
  EXPECT_EQ(list.front().phase, JobPhase::kFailed);
}

// More than wait in any queue of the daemon.
TEST_F(JobsTest, OneApplyLoadsManyModulesAndAPlanKnowsThemAll) {
  constexpr int kMany = 300;
  CompositionSpec spec;
  for (int i = 0; i < kMany; ++i) {
    const std::string name = "copy-" + std::to_string(i);
    const std::string dir = temp_.path + "/" + name;
    fs::create_directory(dir);
    fs::create_hard_link(at("legal") + "/weights.safetensors", dir + "/weights.safetensors");
    fs::copy(at("legal") + "/module.yaml", dir + "/module.yaml");
    edit(dir + "/module.yaml", "name: \"legal\"", "name: " + name);
    spec.modules.push_back({dir, true, 0.0f});
  }
  auto daemon = start();
  const auto applied = daemon->registry->apply(spec, InFlight::kPin);
  ASSERT_TRUE(applied.ok()) << applied.status().to_string();
  ASSERT_EQ(applied->changes.size(), size_t{kMany});
  EXPECT_EQ(applied->changes.back().module, "copy-299");
  const uint64_t hashed = daemon->loader->contents_hashed(), probed = daemon->loader->probes_run();

  // What is loaded is known: nothing is read again, and nothing is to be done.
  const PlanReport same = daemon->registry->outline(spec);
  EXPECT_TRUE(same.refusals.empty());
  EXPECT_TRUE(same.changes.empty());
  EXPECT_EQ(same.memory_bytes, 0);
  EXPECT_EQ(same.composition, daemon->digest());
  std::swap(spec.modules[3], spec.modules[250]);
  spec.modules[7].bias = 0.5f;
  const auto again = daemon->registry->apply(spec, InFlight::kPin);
  ASSERT_TRUE(again.ok()) << again.status().to_string();
  std::vector<ChangeAction> actions;
  for (const ChangeItem& change : again->changes) actions.push_back(change.action);
  EXPECT_THAT(actions, ElementsAre(ChangeAction::kBias, ChangeAction::kReorder));
  EXPECT_EQ(daemon->loader->contents_hashed(), hashed);
  EXPECT_EQ(daemon->loader->probes_run(), probed);
  // And a manifest that changed is seen, though nothing else did.
  edit(spec.modules[7].path + "/module.yaml", "name: copy-7", "name: other");
  const PlanReport renamed = daemon->registry->outline(spec);
  ASSERT_EQ(renamed.changes.size(), 2u);
  EXPECT_EQ(renamed.changes[0].module, "copy-7");
  EXPECT_EQ(renamed.changes[1].module, "other");
  edit(spec.modules[7].path + "/module.yaml", "name: other", "name: copy-7");

  ASSERT_TRUE(daemon->registry->set_bias("copy-200", 0.25f).ok());
  const std::string digest = daemon->digest();
  daemon.reset();
  EXPECT_EQ(start()->digest(), digest);
}

}  // namespace
}  // namespace chimera
