// For tests of the engine: a golden checkpoint cut into backbone and three modules in memory,
// experts that watch or misbehave, and an event sink that remembers.
//
// Thread safety: a Collector from any thread; the rest by the thread of its test.
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/threads/mutex.h"
#include "daemon/engine/engine.h"
#include "experts/kinds/module.h"
#include "experts/kinds/weights.h"

namespace chimera::testing_support {

using namespace std::chrono_literals;

inline const std::string kGolden = CHIMERA_SOURCE_DIR "/../shared/golden/open";

template <class T>
T must(Result<T> result) {
  if (!result.ok()) throw std::runtime_error(result.status().to_string());
  return std::move(*result);
}

using ExpertPtr = std::shared_ptr<const Expert>;
/// Puts another expert in the place of expert `index` of `layer`.
using Wrap = std::function<ExpertPtr(int64_t layer, size_t index, ExpertPtr inner)>;

/// An expert around another one: calls `before`, runs it, then lets `after` change the rows.
class HookedExpert final : public Expert {
 public:
  using Hook = std::function<void(int64_t rows, float* y)>;
  HookedExpert(ExpertPtr inner, Hook before, Hook after = {})
      : inner_(std::move(inner)), before_(std::move(before)), after_(std::move(after)) {}
  Status forward(const float* x, int64_t rows, float* y, ExpertContext& ctx) const override {
    if (before_) before_(rows, y);
    Status status = inner_->forward(x, rows, y, ctx);
    if (after_) after_(rows, y);
    return status;
  }
  uint64_t resident_bytes() const override { return inner_->resident_bytes(); }

 private:
  ExpertPtr inner_;
  Hook before_, after_;
};

/// flex_olmo_f32: experts 0..3 stay with the backbone, 4, 5 and 6 become the modules "a", "b",
/// "c". With all three in order the composition is the whole checkpoint again.
struct World {
  ModelConfig config;
  std::shared_ptr<const Backbone> backbone;
  std::shared_ptr<const Module> whole;
  std::shared_ptr<const Module> base;
  std::optional<RoutingTableBuilder> builder;

  explicit World(const std::string& checkpoint = "flex_olmo_f32", size_t base_experts = 4)
      : base_experts_(base_experts) {
    const Checkpoint files =
        must(Checkpoint::open(kGolden + "/models/" + checkpoint, Residency::kCopied));
    config = must(parse_model_config(files.config_json(), checkpoint));
    backbone = must(Backbone::load(files, Precision::kF32));
    whole = must(load_base_experts(files, config, Precision::kF32));
    auto part = std::make_shared<Module>(*whole);
    for (auto& [layer, l] : part->layers) l = cut(layer, 0, base_experts_);
    base = part;
    builder.emplace(config, base);
  }

  /// Module of the one expert that `name` stands for. `gate_bias` draws tokens to it or away;
  /// another `version` is another digest, so another scope.
  std::shared_ptr<Module> module(const std::string& name, const std::string& version = "1",
                                 float gate_bias = 0.0f, const Wrap& wrap = {}) const {
    auto out = std::make_shared<Module>();
    out->manifest.name = name;
    out->manifest.version = version;
    out->manifest.hidden_size = config.hidden_size;
    out->manifest.digest = "sha256:" + name + "-" + version;
    const size_t expert = base_experts_ + static_cast<size_t>(name[0] - 'a');
    for (const auto& [layer, unused] : whole->layers) {
      ModuleLayer l = cut(layer, expert, expert + 1);
      if (gate_bias != 0.0f) l.gate_bias.assign(1, gate_bias);
      if (wrap) l.experts[0] = wrap(layer, 0, l.experts[0]);
      out->layers[layer] = std::move(l);
    }
    return out;
  }

  /// `bias`: what the composition adds to the first of `modules`. Tables of the same modules share
  /// their layout.
  std::shared_ptr<const RoutingTable> table(
      uint64_t epoch, const std::vector<std::shared_ptr<const Module>>& modules,
      float bias = 0.0f) const {
    Composition composition;
    composition.backbone_fingerprint = "sha256:test";
    for (const auto& m : modules) {
      CompositionModule entry;
      entry.name = m->manifest.name;
      entry.version = m->manifest.version;
      entry.digest = m->manifest.digest;
      composition.modules.push_back(entry);
    }
    if (!modules.empty()) composition.modules.front().bias = bias;
    return must(builder->build(epoch, composition, modules));
  }

 private:
  ModuleLayer cut(int64_t layer, size_t begin, size_t end) const {
    const ModuleLayer& all = whole->layers.at(layer);
    const auto hidden = static_cast<size_t>(config.hidden_size);
    const auto at = [](size_t i) { return static_cast<ptrdiff_t>(i); };
    ModuleLayer out;
    out.experts.assign(all.experts.begin() + at(begin), all.experts.begin() + at(end));
    out.gate_weight.assign(all.gate_weight.begin() + at(begin * hidden),
                           all.gate_weight.begin() + at(end * hidden));
    if (begin == 0) {
      for (size_t i = begin; i < end; ++i) out.slots.push_back(static_cast<int64_t>(i));
    }
    return out;
  }

  size_t base_experts_;
};

/// Remembers all events of a request.
class Collector final : public EventSink {
 public:
  std::function<void(const TokenEvent&)> hook;  // on the engine thread

  void on_token(TokenEvent event) override {
    if (hook) hook(event);
    const MutexLock lock(mutex_);
    late_tokens_ += terminals_ > 0;
    tokens_.push_back(std::move(event));
    changed_.notify_all();
  }
  void on_done(DoneEvent event) override {
    const MutexLock lock(mutex_);
    done_ = std::move(event);
    ++terminals_;
    changed_.notify_all();
  }
  void on_error(Status status) override {
    const MutexLock lock(mutex_);
    error_ = std::move(status);
    ++terminals_;
    changed_.notify_all();
  }

  /// False after 100 s without an end.
  bool wait() {
    const MutexLock lock(mutex_);
    return changed_.wait_for(mutex_, 100s, [this]() REQUIRES(mutex_) { return terminals_ > 0; });
  }
  bool wait_tokens(size_t n) {
    const MutexLock lock(mutex_);
    const auto enough = [&]() REQUIRES(mutex_) { return tokens_.size() >= n || terminals_ > 0; };
    return changed_.wait_for(mutex_, 100s, enough) && tokens_.size() >= n;
  }
  /// The end; a failed test when it is an error or never comes.
  DoneEvent done() {
    if (!wait()) ADD_FAILURE() << "no terminal event";
    const MutexLock lock(mutex_);
    if (!done_) ADD_FAILURE() << "ended with " << (error_ ? error_->to_string() : "nothing");
    return done_.value_or(DoneEvent{});
  }
  Status error() {
    if (!wait()) ADD_FAILURE() << "no terminal event";
    const MutexLock lock(mutex_);
    return error_.value_or(Status());
  }
  std::vector<TokenEvent> tokens() const {
    const MutexLock lock(mutex_);
    return tokens_;
  }
  int terminals() const {
    const MutexLock lock(mutex_);
    return terminals_;
  }
  int late_tokens() const {
    const MutexLock lock(mutex_);
    return late_tokens_;
  }

 private:
  mutable Mutex mutex_;
  CondVar changed_;
  std::vector<TokenEvent> tokens_ GUARDED_BY(mutex_);
  std::optional<DoneEvent> done_ GUARDED_BY(mutex_);
  std::optional<Status> error_ GUARDED_BY(mutex_);
  int terminals_ GUARDED_BY(mutex_) = 0;
  int late_tokens_ GUARDED_BY(mutex_) = 0;
};

inline EngineRequest greedy(std::vector<int32_t> tokens, int64_t max_tokens) {
  EngineRequest request;
  request.tokens = std::move(tokens);
  request.max_tokens = max_tokens;
  request.sampling.temperature = 0;
  request.ignore_eos = true;
  request.want_logprobs = true;
  return request;
}

inline std::vector<int32_t> prompt(int32_t seed, size_t n) {
  std::vector<int32_t> tokens;
  for (size_t i = 0; i < n; ++i)
    tokens.push_back(
        static_cast<int32_t>((static_cast<size_t>(seed) * 131 + i * 37 + i * i) % 300));
  return tokens;
}

inline std::shared_ptr<Collector> submit(Engine& engine, EngineRequest request,
                                         Engine::RequestId* id = nullptr,
                                         std::function<void(const TokenEvent&)> hook = {}) {
  auto sink = std::make_shared<Collector>();
  sink->hook = std::move(hook);
  Result<Engine::RequestId> result = engine.submit(std::move(request), sink);
  EXPECT_TRUE(result.ok()) << result.status().to_string();
  if (id && result.ok()) *id = *result;
  return sink;
}

/// A hook that holds the engine up a little at every token, so that what a test does meanwhile
/// falls into the life of the sequence however busy the machine is.
inline void slowly(const TokenEvent&) { std::this_thread::sleep_for(2ms); }

/// Hooks that hold the engine up between the tokens of a sequence until go_on(), so that a change
/// that the engine makes between two steps falls into the life of the sequence. A change waits for
/// a step or two; a test has kPause times the tokens that are left to ask for it.
class Unhurried {
 public:
  /// Holds from the token of that number on, counted from 1. `this` must outlive the sequence.
  std::function<void(const TokenEvent&)> from(int tokens) {
    return [this, left = tokens](const TokenEvent&) mutable {
      if (left > 1) {
        --left;
        return;
      }
      const MutexLock lock(mutex_);
      changed_.wait_for(mutex_, kPause, [this]() REQUIRES(mutex_) { return go_on_; });
    };
  }
  void go_on() {
    const MutexLock lock(mutex_);
    go_on_ = true;
    changed_.notify_all();
  }

 private:
  static constexpr auto kPause = 250ms;
  Mutex mutex_;
  CondVar changed_;
  bool go_on_ GUARDED_BY(mutex_) = false;
};

/// Tokens and logprobs, bit for bit.
struct Stream {
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;
  bool operator==(const Stream&) const = default;
};
inline Stream stream_of(const DoneEvent& done) { return {done.tokens, done.logprobs}; }

}  // namespace chimera::testing_support

/// For the top of a fixture's SetUp.
#define CHIMERA_NEEDS_GOLDEN()                                                          \
  if (!std::filesystem::exists(::chimera::testing_support::kGolden + "/manifest.json")) \
  GTEST_SKIP() << "golden material not found at " << ::chimera::testing_support::kGolden
