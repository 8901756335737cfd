// The calls of a layer on their way to the executors: what computes elsewhere is begun before all
// others and finished after them, and nothing of the result depends on who computes.
#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <functional>
#include <future>
#include <thread>

#include "base/threads/mutex.h"
#include "router/testing.h"

namespace chimera {
namespace {

using testing::entry;
using testing::make_table;
using testing::random_module;
using testing::random_values;
using testing::run_layers;
using testing::small_config;

/// What happened in one pass, in order: b(egin), r(efused), f(orward), l(ocal), d(one).
struct Log {
  std::string events;
  std::vector<uint64_t> passes;  // that the calls elsewhere were part of
};

/// Passes the rows to another expert, on this thread, and notes it.
class Local final : public Expert {
 public:
  Local(std::shared_ptr<const Expert> inner, Log& log) : inner_(std::move(inner)), log_(log) {}
  Status forward(const float* x, int64_t rows, float* y, ExpertContext& ctx) const override {
    log_.events += 'l';
    if (on_call) on_call();
    return inner_->forward(x, rows, y, ctx);
  }
  uint64_t resident_bytes() const override { return 0; }

  std::function<void()> on_call;

 private:
  const std::shared_ptr<const Expert> inner_;
  Log& log_;
};

/// The same, by an executor of the test.
class Elsewhere final : public Expert {
 public:
  Elsewhere(std::shared_ptr<const Expert> inner, ExpertExecutor& executor, Log& log)
      : inner_(std::move(inner)), executor_(executor), log_(log) {}
  Status forward(const float* x, int64_t rows, float* y, ExpertContext& ctx) const override {
    log_.events += 'f';
    if (fails) return {Code::kUnavailable, "lost"};
    return inner_->forward(x, rows, y, ctx);
  }
  ExpertExecutor& executor() const override { return executor_; }
  uint64_t resident_bytes() const override { return 0; }
  /// From any thread, without a note.
  Status compute(const std::vector<float>& x, int64_t rows, float* y) const {
    if (fails) return {Code::kUnavailable, "lost"};
    ThreadPool pool(1);
    FloatBuffer scratch;
    ExpertContext ctx{best_kernels(), pool, scratch};
    return inner_->forward(x.data(), rows, y, ctx);
  }

  bool fails = false;

 private:
  const std::shared_ptr<const Expert> inner_;
  ExpertExecutor& executor_;
  Log& log_;
};

std::vector<float> copy_of_rows(const ExpertCall& call) {
  return {call.x, call.x + call.rows * 32};
}

/// A thread of its own for one call at a time, from a copy of the rows; the others of a layer are
/// left for run(), as a host does.
class OneAtATime final : public ExpertExecutor {
 public:
  explicit OneAtATime(Log& log) : log_(log) {}
  ExecutorPlace place() const override { return ExecutorPlace::kElsewhere; }
  std::unique_ptr<RunningCalls> start(std::span<ExpertCall> calls, ExpertContext& pass) override {
    for (size_t i = 0; i < calls.size(); ++i) {
      log_.passes.push_back(pass.pass);
      log_.events += i == 0 && !busy ? 'b' : 'r';
    }
    if (busy) return nullptr;
    return std::make_unique<Running>(calls[0], log_);
  }

  bool busy = false;

 private:
  class Running final : public RunningCalls {
   public:
    Running(ExpertCall& call, Log& log)
        : call_(call),
          log_(log),
          result_(std::async(std::launch::async, [&call, x = copy_of_rows(call)] {
            return static_cast<const Elsewhere&>(*call.expert).compute(x, call.rows, call.y);
          })) {}
    void finish() override {
      log_.events += 'd';
      call_.end(result_.get());
    }

   private:
    ExpertCall& call_;
    Log& log_;
    std::future<Status> result_;
  };

  Log& log_;
};

/// A base of `local` experts that note their calls and of as many that are weights, and modules of
/// two experts elsewhere.
struct Model {
  explicit Model(int64_t local = 4, int64_t weights = 0)
      : config(small_config(local + weights, 3, true)) {
    base = random_module(rng, config, "backbone", local + weights, Attach::kAppend);
    plain = std::make_shared<Module>(*base);
    for (auto& [layer, part] : base->layers) {
      for (size_t e = 0; e < static_cast<size_t>(local); ++e) {
        locals.push_back(std::make_shared<Local>(part.experts[e], log));
        part.experts[e] = locals.back();
      }
    }
  }
  /// The experts of two new modules of the same weights, of which the second are by `executor`.
  void add_module(const std::string& name, ExpertExecutor& executor) {
    here.push_back(random_module(rng, config, name, 2, Attach::kAppend));
    auto module = std::make_shared<Module>(*here.back());
    for (auto& [layer, part] : module->layers) {
      for (auto& e : part.experts) {
        elsewhere.push_back(std::make_shared<Elsewhere>(e, executor, log));
        e = elsewhere.back();
      }
    }
    far.push_back(module);
  }
  using Modules = std::vector<std::shared_ptr<const Module>>;
  /// Of `x`, whose rows are segments of their own.
  std::vector<float> outputs(const std::shared_ptr<const Module>& backbone, const Modules& modules,
                             const std::vector<float>& x) {
    const auto table = make_table(config, backbone, modules);
    const auto view = *make_route_view(table, table->all(), {});
    segments.clear();
    segments.resize(x.size() / static_cast<size_t>(config.hidden_size));
    for (RoutedSegment& segment : segments) {
      segment.view = view.get();
      segment.rows = 1;
    }
    MoeRouter router(config, best_kernels(), pool);
    return run_layers(router, config, segments, x);
  }
  /// Asks both ways, and compares.
  void expect_same(int64_t rows) {
    const std::vector<float> x = random_values(rng, rows * config.hidden_size, 1.0f);
    const auto expected = outputs(plain, here, x);
    log.events.clear();
    const auto found = outputs(base, far, x);
    for (const RoutedSegment& s : segments) EXPECT_FALSE(s.poisoned) << s.failure.to_string();
    ASSERT_EQ(found.size(), expected.size());
    EXPECT_EQ(std::memcmp(found.data(), expected.data(), found.size() * sizeof(float)), 0);
  }

  std::mt19937 rng{9};
  ModelConfig config;
  Log log;
  std::shared_ptr<Module> base, plain;
  Modules here, far;
  std::vector<std::shared_ptr<Local>> locals;         // by layer and number
  std::vector<std::shared_ptr<Elsewhere>> elsewhere;  // by module, layer and number
  std::vector<RoutedSegment> segments;                // of the last pass
  ThreadPool pool{2};
};

TEST(MoeElsewhere, OverlapsWithTheOthersAndChangesNothing) {
  Model m;
  OneAtATime host(m.log);
  m.add_module("far", host);
  m.expect_same(20);
  // Per layer: one begun, its sibling refused, four here, the end, and then the sibling.
  EXPECT_EQ(m.log.events, "brlllldfbrlllldf");
}

// A pass that waits for a turn keeps none that another pass may be waiting for.
TEST(MoeElsewhere, NobodyRunsWhileAnythingStartedIsUnderWay) {
  Model m;
  OneAtATime first(m.log), second(m.log), third(m.log);
  m.add_module("far", first);
  m.add_module("further", second);
  m.add_module("furthest", third);
  second.busy = true;  // with another pass
  m.expect_same(40);
  const std::string& events = m.log.events;
  ASSERT_EQ(events.size(), 32u) << events;
  for (const std::string& layer : {events.substr(0, 16), events.substr(16)}) {
    EXPECT_EQ(layer.substr(6), "llllddffff") << layer;
    EXPECT_EQ(std::count(layer.begin(), layer.end(), 'b'), 2) << layer;
  }
}

TEST(MoeElsewhere, WithoutOthersItStillRuns) {
  Model m;
  OneAtATime host(m.log);
  m.add_module("far", host);
  m.config.num_experts_per_tok = 1;
  Composition only;
  only.modules = {entry("far", 100.0f)};  // every row chooses the module
  const auto table = make_table(m.config, m.base, m.far, only);
  const auto view = *make_route_view(table, table->all(), {});
  RoutedSegment segment;
  segment.view = view.get();
  segment.rows = 1;
  MoeRouter router(m.config, best_kernels(), m.pool);
  const std::vector<float> x = random_values(m.rng, m.config.hidden_size, 1.0f);
  EXPECT_FALSE(run_layers(router, m.config, {&segment, 1}, x).empty());
  EXPECT_EQ(m.log.events, "bdbd");
  // Both layers are one pass, and the next pass is another.
  run_layers(router, m.config, {&segment, 1}, x);
  ASSERT_EQ(m.log.passes.size(), 4u);
  EXPECT_NE(m.log.passes[0], 0u);
  EXPECT_EQ(m.log.passes[0], m.log.passes[1]);
  EXPECT_EQ(m.log.passes[2], m.log.passes[3]);
  EXPECT_NE(m.log.passes[0], m.log.passes[2]);
}

/// Where two threads wait for one another. Who comes alone gives up, so that a test ends.
class Meeting {
 public:
  bool wait() {
    const MutexLock lock(mutex_);
    if (++here_ == 2) changed_.notify_all();
    return changed_.wait_for(mutex_, std::chrono::minutes(2),
                             [this]() REQUIRES(mutex_) { return here_ >= 2; });
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  int here_ GUARDED_BY(mutex_) = 0;
};

/// As a device would: takes all calls of a layer in one piece, and computes them on a thread of its
/// own, which meets the caller's before it ends.
class Device final : public ExpertExecutor {
 public:
  ExecutorPlace place() const override { return ExecutorPlace::kElsewhere; }
  std::unique_ptr<RunningCalls> start(std::span<ExpertCall> calls, ExpertContext&) override {
    batches.push_back(calls.size());
    std::vector<std::vector<float>> inputs;
    for (const ExpertCall& call : calls) inputs.push_back(copy_of_rows(call));
    return std::make_unique<Running>(calls, std::move(inputs), meeting);
  }
  void run(std::span<ExpertCall> calls, ExpertContext&) override {
    for (const ExpertCall& call : calls) EXPECT_TRUE(call.done);
  }

  std::vector<size_t> batches;  // calls of each
  Meeting* meeting = nullptr;   // of the next layer; null: it meets nobody

 private:
  class Running final : public RunningCalls {
   public:
    Running(std::span<ExpertCall> calls, std::vector<std::vector<float>> inputs, Meeting* meeting)
        : thread_([=, inputs = std::move(inputs)] {
            EXPECT_TRUE(meeting == nullptr || meeting->wait()) << "nothing ran beside it";
            for (size_t i = 0; i < calls.size(); ++i) {
              const auto& expert = static_cast<const Elsewhere&>(*calls[i].expert);
              calls[i].end(expert.compute(inputs[i], calls[i].rows, calls[i].y));
            }
          }) {}
    ~Running() override { finish(); }
    void finish() override {
      if (thread_.joinable()) thread_.join();
    }

   private:
    std::thread thread_;
  };
};

TEST(MoeExecutors, AnotherGetsAllCallsOfALayerAtOnceBesideThoseHere) {
  Model m(2, 3);  // of libraries, of weights
  Device device;
  m.add_module("far", device);
  m.add_module("further", device);
  Meeting meetings[2];
  for (size_t layer = 0; layer < 2; ++layer) {
    m.locals[2 * layer]->on_call = [&meetings, &device, layer] {
      EXPECT_TRUE(meetings[layer].wait()) << "nothing was under way elsewhere";
      device.meeting = layer == 0 ? &meetings[1] : nullptr;
    };
  }
  device.meeting = &meetings[0];
  m.expect_same(40);
  // All four, of both modules, per layer; two calls here.
  EXPECT_EQ(device.batches, (std::vector<size_t>{4, 4}));
  EXPECT_EQ(m.log.events, "llll");
}

// The calls lie by executor, not in the order of their experts: each has the answer of its own.
TEST(MoeExecutors, AFailureIsThatOfItsCall) {
  Model m(2, 3);
  Device device;
  m.add_module("far", device);
  m.add_module("further", caller_executor());
  const std::vector<float> x = random_values(m.rng, 40 * m.config.hidden_size, 1.0f);
  std::vector<std::string> failures[2];
  for (const bool elsewhere : {false, true}) {
    // The second of `far` in the first layer; where all are called here, the same expert.
    Model::Modules modules = m.far;
    m.elsewhere[1]->fails = true;
    Log log;
    if (!elsewhere) {
      auto module = std::make_shared<Module>(*m.here[0]);
      auto& expert = module->layers.at(0).experts[1];
      const auto failing = std::make_shared<Elsewhere>(expert, caller_executor(), log);
      failing->fails = true;
      expert = failing;
      modules[0] = module;
    }
    m.outputs(m.base, modules, x);
    for (const RoutedSegment& s : m.segments) {
      failures[elsewhere].push_back(s.poisoned ? s.failure.to_string() : "");
    }
  }
  EXPECT_EQ(failures[0], failures[1]);
  EXPECT_EQ(
      std::count(failures[1].begin(), failures[1].end(), "module far, layer 0, expert 1: lost"),
      std::count_if(failures[1].begin(), failures[1].end(),
                    [](const std::string& why) { return !why.empty(); }));
  EXPECT_NE(std::count(failures[1].begin(), failures[1].end(), ""), 0);
  EXPECT_NE(std::count(failures[1].begin(), failures[1].end(), ""), 40);
}

}  // namespace
}  // namespace chimera
