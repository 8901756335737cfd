// Drawn histories of requests, swaps, biases, cancellations and revocations, with a cache that is
// too small for them, checked by what everybody saw (history_testing.h).
//
// Prompts are of less than a chunk up to several, so that a step has parts of some of them
// beside streams; a fifth of the requests is cancelled in the middle.
//
// CHIMERA_HISTORIES=N draws N of them instead of a few (of one, under a sanitizer), and
// CHIMERA_HISTORY_SEED=S begins at seed S: what a failure names is what shows it again, as far as
// threads let it.
#include <gtest/gtest.h>

#include <cstdlib>
#include <future>
#include <random>

#include "daemon/registry/history_testing.h"

namespace chimera {
namespace {

using namespace testing_support;

constexpr int kRounds = 3, kRequests = 14, kChanges = 7;
constexpr int64_t kContext = 128, kChunk = 32;
// A sanitizer takes ten times as long; what it looks for shows in one history as well as in
// several.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr uint64_t kHistories = 1;
#else
constexpr uint64_t kHistories = 3;
#endif

uint64_t setting(const char* name, uint64_t fallback) {
  const char* text = std::getenv(name);
  return text == nullptr ? fallback : std::strtoull(text, nullptr, 10);
}

/// Where the engine stands still until a change has been asked for, so that changes fall into the
/// lives of requests however busy the machine is.
class Milestones {
 public:
  /// On the engine thread.
  void pass() {
    const MutexLock lock(mutex_);
    ++tokens_;
    changed_.notify_all();
    changed_.wait(mutex_, [this]() REQUIRES(mutex_) { return tokens_ < next_ || over_; });
  }
  /// Returns when so many tokens have been given; the engine stands still then, until the next
  /// call.
  void wait_for(uint64_t tokens) {
    const MutexLock lock(mutex_);
    next_ = tokens;
    changed_.notify_all();
    changed_.wait(mutex_, [&]() REQUIRES(mutex_) { return tokens_ >= tokens || over_; });
  }
  /// The engine does not stand still until the next call.
  void go_on() {
    const MutexLock lock(mutex_);
    next_ = kNever;
    changed_.notify_all();
  }
  /// Nobody waits any more.
  void end() {
    const MutexLock lock(mutex_);
    over_ = true;
    changed_.notify_all();
  }

 private:
  static constexpr uint64_t kNever = ~uint64_t{0};

  Mutex mutex_;
  CondVar changed_;
  uint64_t tokens_ GUARDED_BY(mutex_) = 0;
  uint64_t next_ GUARDED_BY(mutex_) = kNever;
  bool over_ GUARDED_BY(mutex_) = false;
};

class HistoryTest : public RegistryTest {
 protected:
  void SetUp() override {
    RegistryTest::SetUp();
    if (IsSkipped()) return;
    // Another version of a module, with other experts.
    next_legal_ = copy("bio", "legal-next");
    edit(next_legal_ + "/module.yaml", "name: \"bio\"", "name: \"legal\"");
    edit(next_legal_ + "/module.yaml", must(read_manifest(next_legal_)).version, "2.0.0");
    Composition whole;
    whole.backbone_fingerprint = Fixture::get().loaded().fingerprint;
    for (const char* name : {"legal", "bio", "finance"}) {
      const Manifest manifest = must(read_manifest(at(name)));
      whole.modules.push_back({manifest.name, manifest.version, manifest.digest, at(name)});
    }
    oracle_ = std::make_unique<Oracle>(whole.digest());
  }

  size_t draw(size_t below) { return random_() % below; }
  bool chance(int percent) { return draw(100) < static_cast<size_t>(percent); }
  std::string any_name() { return std::vector<std::string>{"legal", "bio", "finance"}[draw(3)]; }
  std::string any_path() { return chance(30) ? next_legal_ : at(any_name()); }
  float any_bias() { return 0.5f * static_cast<float>(draw(5)) - 1.0f; }

  EngineRequest any_request() {
    // Few beginnings, so that prefixes are found. A long one takes several steps beside the others.
    const size_t tokens = chance(20) ? 2 * kChunk + draw(kChunk) : 18 + draw(40);
    EngineRequest request = greedy(prompt(static_cast<int32_t>(draw(3)), tokens),
                                   static_cast<int64_t>(4 + draw(kContext - tokens - 4) % 36));
    if (chance(15)) {
      request.kind = EngineRequest::Kind::kScore;
      request.want_logits = true;
    } else if (chance(25)) {
      request.sampling.temperature = 1.0;
      request.sampling.seed = draw(1000);
    }
    if (chance(25)) request.modules.exclude = {any_name()};
    if (chance(15)) request.modules.only = {any_name(), any_name()};
    if (chance(15)) request.modules.bias[any_name()] = any_bias();
    return request;
  }

  ChangeRequest any_change() {
    const InFlight in_flight = chance(50) ? InFlight::kPin : InFlight::kRestart;
    switch (draw(8)) {
      case 0:
        return UnloadArgs{any_name()};
      case 1:
        return EditArgs{any_name(), {chance(70), std::nullopt}};
      case 2:
      case 3:
        return EditArgs{any_name(), {std::nullopt, any_bias()}};
      case 4: {
        CompositionSpec spec;
        for (const std::string& path : {at("legal"), at("bio"), at("finance")})
          if (chance(80)) spec.modules.push_back({path, true, chance(70) ? 0.0f : any_bias()});
        return ApplyArgs{spec, in_flight, nullptr};
      }
      case 5:
        return RollbackArgs{};
      default: {
        LoadArgs load = load_of(any_path());
        load.in_flight = in_flight;
        return load;
      }
    }
  }

  void run_round(const Daemon& daemon);
  void ask_for_changes(const Daemon& daemon, Milestones* milestones);
  History run(uint64_t seed);

  std::mt19937_64 random_;
  std::string next_legal_;
  std::unique_ptr<Oracle> oracle_;
  Clockwork clock_{0};
  History history_;
  uint64_t paused_ = 0, cached_ = 0;
};

void HistoryTest::ask_for_changes(const Daemon& daemon, Milestones* milestones) {
  std::vector<std::future<void>> ends;
  uint64_t tokens = 0;
  for (int i = 0; i < kChanges; ++i) {
    milestones->wait_for(tokens += 1 + draw(40));
    if (chance(15)) {
      const std::string name = any_name();
      milestones->go_on();  // it waits for the engine
      const auto report = daemon.registry->revoke(name);
      if (report.ok()) history_.revocations.push_back({name, report->epoch, ++clock_});
      continue;
    }
    auto end = std::make_shared<std::promise<void>>();
    ends.push_back(end->get_future());
    daemon.registry->ask(any_change(), {},
                         [end](const Result<ChangeReport>&) { end->set_value(); });
  }
  milestones->end();
  for (auto& end : ends) end.get();
}

void HistoryTest::run_round(const Daemon& daemon) {
  Milestones milestones;
  Gate gate;
  // Its first token stands still until all the others have been queued.
  const auto first = submit(*daemon.engine, greedy(prompt(9, 4), 2), nullptr,
                            [&](const TokenEvent&) { (void)gate.pass(); });
  EXPECT_TRUE(gate.reached_by(1));
  std::vector<std::shared_ptr<Recorder>> clients;
  for (int i = 0; i < kRequests; ++i) {
    EngineRequest request = any_request();
    const auto client = std::make_shared<Recorder>(request, &clock_);
    const size_t cancelled_at = chance(20) ? 1 + draw(8) : 0;
    auto id = std::make_shared<RequestId>(0);
    client->on_count = [&daemon, &milestones, id, cancelled_at](size_t tokens) {
      if (tokens == cancelled_at) daemon.engine->cancel(*id);
      milestones.pass();
    };
    const Result<RequestId> queued = daemon.engine->submit(std::move(request), client);
    if (!queued.ok()) {
      EXPECT_EQ(queued.status().code(), Code::kNotFound) << queued.status().to_string();
      continue;  // its module is not there
    }
    *id = *queued;
    clients.push_back(client);
  }
  std::thread changes([&] { ask_for_changes(daemon, &milestones); });
  gate.open();
  (void)first->done();
  for (const auto& client : clients) EXPECT_TRUE(client->wait()) << "no end";
  milestones.end();
  changes.join();
  for (const auto& client : clients) history_.requests.push_back(client->seen());
  for (const EpochRecord& record : daemon.registry->history())
    history_.epochs.emplace(record.epoch, record.composition);
}

History HistoryTest::run(uint64_t seed) {
  random_.seed(seed);
  history_ = {};
  fs::remove_all(state());
  Daemon::Settings settings;
  settings.deployment = spec_of({at("legal"), at("bio"), at("finance")});
  settings.engine.max_sequences = 6;
  settings.engine.max_context = kContext;
  settings.engine.prefill_chunk = kChunk;
  settings.engine.threads = 2;
  settings.engine.max_live_epochs = 3;
  settings.engine.kv_bytes =
      least_kv_bytes(Fixture::get().loaded().backbone->config(), settings.engine) * 3 / 2;
  if (seed % 2 == 1) settings.engine.pin_limit = std::chrono::milliseconds(1);
  const auto daemon = start(std::move(settings));
  for (int round = 0; round < kRounds; ++round) run_round(*daemon);
  paused_ += daemon->engine->stats().paused;
  cached_ += daemon->engine->stats().cached_tokens;
  return history_;
}

TEST_F(HistoryTest, EveryAnswerIsWhatItsModulesAloneGiveWhateverHappensMeanwhile) {
  const uint64_t first = setting("CHIMERA_HISTORY_SEED", 1);
  for (uint64_t seed = first; seed < first + setting("CHIMERA_HISTORIES", kHistories); ++seed) {
    const History history = run(seed);
    const HistoryChecker checker(history, oracle_.get());
    for (const std::string& problem : checker.problems())
      ADD_FAILURE() << "seed " << seed << ": " << problem;
  }
  EXPECT_GT(paused_, 0u) << "the cache was not short";
  EXPECT_GT(cached_, 0u) << "no prefix was found";
}

// A checker that sees nothing would be content with everything.
TEST_F(HistoryTest, TheCheckerNoticesWhatIsWrong) {
  const History history = run(1);
  const auto finds = [&](const std::string& what, const std::function<bool(History&)>& spoil) {
    History spoilt = history;
    ASSERT_TRUE(spoil(spoilt)) << what;
    const HistoryChecker checker(spoilt, oracle_.get());
    EXPECT_FALSE(checker.problems().empty()) << what;
  };
  const auto of_tokens = [](History& h, const std::function<void(Seen&)>& change) {
    for (Seen& seen : h.requests) {
      const bool answered = seen.request.kind == EngineRequest::Kind::kGenerate && seen.done &&
                            seen.done->finish_reason == FinishReason::kLength;
      if (!answered) continue;
      change(seen);
      return true;
    }
    return false;
  };
  finds("a second end", [&](History& h) { return of_tokens(h, [](Seen& s) { ++s.terminals; }); });
  finds("a token after the end",
        [&](History& h) { return of_tokens(h, [](Seen& s) { ++s.late_tokens; }); });
  finds("another token", [&](History& h) {
    return of_tokens(h, [](Seen& s) {
      s.tokens.back().event.token ^= 1;
      s.done->tokens.back() ^= 1;
    });
  });
  finds("a bit of a probability", [&](History& h) {
    return of_tokens(h, [](Seen& s) {
      float& logprob = *s.tokens.front().event.logprob;
      logprob = std::nextafter(logprob, 0.0f);
    });
  });
  finds("a token twice", [&](History& h) {
    return of_tokens(h, [](Seen& s) { s.tokens.push_back(s.tokens.back()); });
  });
  finds("an epoch that never was", [&](History& h) {
    return of_tokens(h, [](Seen& s) { s.tokens.back().event.epoch = 4711; });
  });
  finds("a token of what was revoked", [&](History& h) {
    for (const Seen& seen : h.requests) {
      for (const Seen::Token& token : seen.tokens) {
        const uint64_t epoch = token.event.epoch;
        const Composition scope = Oracle::permitted(h.epochs.at(epoch), seen.request.modules);
        if (scope.modules.empty()) continue;
        h.revocations.push_back({scope.modules.front().name, epoch + 1, token.when});
        return true;
      }
    }
    return false;
  });
  finds("another composition", [&](History& h) {
    for (auto& [epoch, composition] : h.epochs)
      for (CompositionModule& module : composition.modules) module.bias += 3.0f;
    return true;
  });
}

}  // namespace
}  // namespace chimera
