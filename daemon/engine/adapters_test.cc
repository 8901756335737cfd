// Sequences whose adapters are not in memory: they wait, the others do not, and their bits are
// those of adapters that are.
#include <random>

#include "daemon/engine/testing.h"

namespace chimera {
namespace {

using namespace testing_support;
using Clock = std::chrono::steady_clock;

constexpr uint64_t kSize = 1000;  // of every adapter, as the store counts it

LowRank random_change(std::mt19937& rng, int64_t outputs, int64_t inputs) {
  constexpr int64_t kRank = 3;
  std::normal_distribution<float> normal(0.0f, 0.2f);
  const auto matrix = [&](int64_t cols) {
    auto values = std::make_shared<std::vector<float>>(static_cast<size_t>(kRank * cols));
    for (float& v : *values) v = normal(rng);
    return Matrix{values->data(), WeightFormat::kF32, kRank, cols, values};
  };
  return {matrix(inputs), matrix(outputs), 0.5f};
}

class EngineAdapters : public ::testing::Test {
 protected:
  void SetUp() override {
    CHIMERA_NEEDS_GOLDEN();
    world_ = std::make_unique<World>();
  }

  /// The same for the same seed.
  std::shared_ptr<const Adapter> adapter(unsigned seed) const {
    const ModelConfig& c = world_->config;
    std::mt19937 rng(seed);
    auto made = std::make_shared<Adapter>();
    made->bytes = kSize;
    made->backbone.layers.resize(static_cast<size_t>(c.num_layers));
    made->experts.resize(static_cast<size_t>(c.num_layers));
    for (int64_t layer = 0; layer < c.num_layers; ++layer) {
      for (const NeededTensor& t : needed_layer_tensors(c, layer)) {
        if (t.shape.size() == 2)
          made->backbone.layers[static_cast<size_t>(layer)].changes.emplace_back(
              t.role, random_change(rng, t.shape[0], t.shape[1]));
      }
      auto& experts = made->experts[static_cast<size_t>(layer)];
      experts.resize(static_cast<size_t>(c.num_experts));
      for (ExpertChange& expert : experts)
        expert.up = random_change(rng, c.intermediate_size, c.hidden_size);
    }
    return made;
  }
  std::shared_ptr<Module> module(unsigned seed, const std::string& name) const {
    auto out = std::make_shared<Module>();
    out->manifest.name = name;
    out->manifest.version = "1";
    out->manifest.kind = ModuleKind::kLora;
    out->manifest.digest = "sha256:lora-" + std::to_string(seed);
    out->adapter = adapter(seed);
    return out;
  }
  /// The same, in memory when the store has it there. Reading waits for `gate_`.
  std::shared_ptr<Module> paged(unsigned seed, const std::string& name) {
    auto out = module(seed, name);
    out->adapter_source =
        store_.add(name, std::exchange(out->adapter, nullptr),
                   [this, seed, name]() -> Result<std::shared_ptr<const Adapter>> {
                     const MutexLock lock(mutex_);
                     reading_ = true;
                     open_.wait(mutex_, [this]() REQUIRES(mutex_) { return !closed_; });
                     if (broken_ == name)
                       return Status(Code::kDataCorrupt, "module " + name + ": changed");
                     return adapter(seed);
                   });
    return out;
  }
  void close(bool closed) {
    const MutexLock lock(mutex_);
    closed_ = closed;
    reading_ = false;
    open_.notify_all();
  }
  void break_file(const std::string& name) {
    const MutexLock lock(mutex_);
    broken_ = name;
  }
  std::unique_ptr<Engine> engine(const std::vector<std::shared_ptr<const Module>>& modules,
                                 EngineOptions options = {}) {
    options.adapters = &store_;
    options.max_queue = 256;
    return must(Engine::create(world_->backbone, nullptr, world_->table(1, modules), options));
  }
  static EngineRequest with(std::vector<std::string> adapters, int64_t tokens = 12) {
    EngineRequest request = greedy(prompt(3, 9), tokens);
    request.modules.adapters = std::move(adapters);
    return request;
  }
  void await_waiting(int64_t count) const {
    const auto until = Clock::now() + 100s;
    while (store_.stats().waiting != count && Clock::now() < until) std::this_thread::yield();
    ASSERT_EQ(store_.stats().waiting, count);
  }

  void await_reading() {
    const auto reading = [this] {
      const MutexLock lock(mutex_);
      return reading_;
    };
    const auto until = Clock::now() + 100s;
    while (!reading() && Clock::now() < until) std::this_thread::yield();
    ASSERT_TRUE(reading());
  }

  std::unique_ptr<World> world_;
  Mutex mutex_;
  CondVar open_;
  bool reading_ GUARDED_BY(mutex_) = false;  // since it was closed
  bool closed_ GUARDED_BY(mutex_) = false;
  std::string broken_ GUARDED_BY(mutex_);
  AdapterStore store_{3 * kSize};
};

TEST_F(EngineAdapters, AnswersAreThoseOfAdaptersInMemory) {
  std::vector<std::shared_ptr<const Module>> whole, read;
  std::vector<std::string> names;
  for (unsigned i = 0; i < 12; ++i) {
    names.push_back("lora-" + std::to_string(i));
    whole.push_back(module(i, names.back()));
    read.push_back(paged(i, names.back()));
  }
  std::vector<std::vector<std::string>> wishes{{}};
  for (size_t i = 0; i < 30; ++i) {
    wishes.push_back({names[i * 5 % 12]});
    if (i % 3 == 0) wishes.back().push_back(names[(i * 5 + 1 + i % 7) % 12]);
  }
  std::vector<Stream> expected;
  {
    const auto all = engine(whole);
    for (const auto& wish : wishes) expected.push_back(stream_of(submit(*all, with(wish))->done()));
  }
  EXPECT_NE(expected[0], expected[1]);
  for (const int64_t sequences : {1, 16}) {
    EngineOptions options;
    options.max_sequences = sequences;
    const auto some = engine(read, options);
    std::vector<std::shared_ptr<Collector>> answers;
    for (const auto& wish : wishes) answers.push_back(submit(*some, with(wish)));
    for (size_t i = 0; i < wishes.size(); ++i)
      EXPECT_EQ(stream_of(answers[i]->done()), expected[i]) << i;
    EXPECT_EQ(some->stats().live, 0);
  }
  const AdapterStats stats = store_.stats();
  EXPECT_GT(stats.evictions, 12u);
  EXPECT_LE(stats.bytes, stats.limit);
  EXPECT_EQ(stats.waiting, 0);
}

TEST_F(EngineAdapters, WhoWaitsHoldsUpNobodyAndMayGo) {
  std::vector<std::shared_ptr<const Module>> modules;
  for (unsigned i = 0; i < 5; ++i) modules.push_back(paged(i, "lora-" + std::to_string(i)));
  const auto daemon = engine(modules);
  const Stream plain = stream_of(submit(*daemon, with({}))->done());
  close(true);
  Engine::RequestId left = 0;
  const auto leaves = submit(*daemon, with({"lora-4"}), &left);
  await_waiting(1);
  EXPECT_EQ(stream_of(submit(*daemon, with({}))->done()), plain);
  EXPECT_EQ(submit(*daemon, with({"lora-2"}))->done().finish_reason, FinishReason::kLength);
  EngineRequest brief = with({"lora-4"});
  brief.deadline = Clock::now() + 20ms;
  EXPECT_EQ(submit(*daemon, std::move(brief))->done().finish_reason, FinishReason::kDeadline);
  EXPECT_EQ(leaves->terminals(), 0);
  daemon->cancel(left);
  EXPECT_EQ(leaves->done().finish_reason, FinishReason::kCancelled);
  await_waiting(0);
  close(false);
  const DoneEvent done = submit(*daemon, with({"lora-4"}))->done();
  EXPECT_EQ(done.modules.count("lora-4"), 1u);
  EXPECT_NE(stream_of(done), plain);
  EXPECT_EQ(submit(*daemon, with({"lora-0", "lora-1", "lora-2", "lora-3"}))->error().code(),
            Code::kResourceExhausted);
}

TEST_F(EngineAdapters, WhatCannotBeReadFailsItsOwnRequests) {
  std::vector<std::shared_ptr<const Module>> modules;
  for (unsigned i = 0; i < 5; ++i) modules.push_back(paged(i, "lora-" + std::to_string(i)));
  const auto daemon = engine(modules);
  break_file("lora-4");
  const auto fails = submit(*daemon, with({"lora-4"}));
  const auto works = submit(*daemon, with({"lora-3"}));
  EXPECT_EQ(fails->error().message(), "module lora-4: changed");
  EXPECT_EQ(works->done().finish_reason, FinishReason::kLength);
  break_file("");
  EXPECT_EQ(submit(*daemon, with({"lora-4"}))->done().finish_reason, FinishReason::kLength);
}

TEST_F(EngineAdapters, ThoseInUseStayAndStreamsKeepTheirBits) {
  std::vector<std::shared_ptr<const Module>> modules, whole;
  for (unsigned i = 0; i < 8; ++i) {
    modules.push_back(paged(i, "lora-" + std::to_string(i)));
    whole.push_back(module(i, "lora-" + std::to_string(i)));
  }
  const Stream alone = stream_of(submit(*engine(whole), with({"lora-6", "lora-7"}, 60))->done());
  const auto daemon = engine(modules);
  Unhurried stream;
  const auto runs = submit(*daemon, with({"lora-6", "lora-7"}, 60), nullptr, stream.from(20));
  ASSERT_TRUE(runs->wait_tokens(1));
  for (unsigned i = 0; i < 6; ++i) {
    const auto other = submit(*daemon, with({"lora-" + std::to_string(i)}, 2));
    stream.go_on();
    EXPECT_EQ(other->done().finish_reason, FinishReason::kLength);
  }
  EXPECT_EQ(stream_of(runs->done()), alone);
  EXPECT_GT(store_.stats().evictions, 4u);
}

TEST_F(EngineAdapters, ChangesReachThoseThatWait) {
  std::vector<std::shared_ptr<const Module>> modules;
  for (unsigned i = 0; i < 5; ++i) modules.push_back(paged(i, "lora-" + std::to_string(i)));
  const auto daemon = engine(modules);
  const Stream plain = stream_of(submit(*daemon, with({}))->done());
  close(true);
  // Withdrawn while it is waited for: what is left answers.
  const auto goes_on = submit(*daemon, with({"lora-4"}));
  await_waiting(1);
  await_reading();  // into memory that is its own: the one that replaces it finds none, and waits
  modules.pop_back();
  ASSERT_TRUE(daemon->revoke("lora-4", world_->table(2, modules)).ok());
  EXPECT_EQ(stream_of(goes_on->done()), plain);
  await_waiting(0);
  // Replaced: the request has begun with the one before.
  modules.push_back(paged(4, "lora-4"));
  ASSERT_TRUE(daemon->publish(world_->table(3, modules), InFlight::kPin, 10s).ok());
  const auto pinned = submit(*daemon, with({"lora-4"}));
  const auto another = submit(*daemon, with({"lora-4"}));
  await_waiting(2);
  modules.back() = paged(9, "lora-4");
  ASSERT_TRUE(daemon->publish(world_->table(4, modules), InFlight::kPin, 10s).ok());
  close(false);
  const Stream before = stream_of(pinned->done());
  EXPECT_EQ(stream_of(another->done()), before);
  const Stream after = stream_of(submit(*daemon, with({"lora-4"}))->done());
  EXPECT_NE(before, after);
  EXPECT_EQ(after, stream_of(submit(*engine({module(9, "lora-4")}), with({"lora-4"}))->done()));
}

TEST_F(EngineAdapters, WaitingTakesNoBlocks) {
  std::vector<std::shared_ptr<const Module>> modules;
  for (unsigned i = 0; i < 5; ++i) modules.push_back(paged(i, "lora-" + std::to_string(i)));
  EngineOptions options;
  options.max_context = 64;
  options.max_sequences = 4;
  options.kv_bytes = least_kv_bytes(world_->config, options);  // of one context
  const auto daemon = engine(modules, options);
  const Stream long_one = stream_of(submit(*daemon, with({}, 50))->done());
  close(true);
  const auto waits = submit(*daemon, with({"lora-4"}, 50));
  await_waiting(1);
  EXPECT_EQ(stream_of(submit(*daemon, with({}, 50))->done()), long_one);
  const auto beside = submit(*daemon, with({}, 50));
  close(false);
  EXPECT_EQ(stream_of(beside->done()), long_one);
  EXPECT_EQ(waits->done().finish_reason, FinishReason::kLength);
}

}  // namespace
}  // namespace chimera
