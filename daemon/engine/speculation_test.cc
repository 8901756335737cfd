// Guesses of the next tokens (EngineOptions::ngram_speculation) change how many steps an answer
// takes, and nothing that anybody is told of it.
#include <gtest/gtest.h>

#include <algorithm>

#include "daemon/engine/engine.h"
#include "daemon/engine/testing.h"
#include "text/constraint/constraint.h"

namespace chimera {
namespace {

using namespace testing_support;

constexpr auto kPatience = 100s;
constexpr int64_t kTokens = 60;

/// A prompt that says the same thing `times` times, so that there is something to guess from.
std::vector<int32_t> repeated(int32_t seed, int times = 4) {
  const std::vector<int32_t> once = prompt(seed, 9);
  std::vector<int32_t> all;
  for (int i = 0; i < times; ++i) all.insert(all.end(), once.begin(), once.end());
  return all;
}

void expect_same_choices(const std::vector<TokenChoice>& x, const std::vector<TokenChoice>& y) {
  ASSERT_EQ(x.size(), y.size());
  for (size_t i = 0; i < x.size(); ++i) {
    EXPECT_EQ(x[i].token, y[i].token);
    EXPECT_EQ(x[i].logprob, y[i].logprob);
  }
}

void expect_same_events(const Collector& x, const Collector& y) {
  const std::vector<TokenEvent> xs = x.tokens(), ys = y.tokens();
  ASSERT_EQ(xs.size(), ys.size());
  for (size_t i = 0; i < xs.size(); ++i) {
    SCOPED_TRACE("token " + std::to_string(i));
    EXPECT_EQ(xs[i].token, ys[i].token);
    EXPECT_EQ(xs[i].text, ys[i].text);
    EXPECT_EQ(xs[i].logprob, ys[i].logprob);
    EXPECT_EQ(xs[i].epoch, ys[i].epoch);
    EXPECT_EQ(xs[i].shares, ys[i].shares);
    expect_same_choices(xs[i].top, ys[i].top);
  }
}

/// Everything but times, bit for bit.
void expect_same_answer(const DoneEvent& x, const DoneEvent& y) {
  EXPECT_EQ(stream_of(x), stream_of(y));
  EXPECT_EQ(x.text, y.text);
  EXPECT_EQ(x.finish_reason, y.finish_reason);
  EXPECT_EQ(x.prompt_tokens, y.prompt_tokens);
  EXPECT_EQ(x.completion_tokens, y.completion_tokens);
  EXPECT_EQ(x.cached_tokens, y.cached_tokens);
  EXPECT_EQ(x.epoch, y.epoch);
  EXPECT_EQ(x.composition, y.composition);
  EXPECT_EQ(x.epochs.size(), y.epochs.size());
  EXPECT_EQ(x.backbone_share, y.backbone_share);
  EXPECT_EQ(x.backbone_rows, y.backbone_rows);
  ASSERT_EQ(x.modules.size(), y.modules.size());
  for (const auto& [name, module] : x.modules) {
    ASSERT_EQ(y.modules.count(name), 1u) << name;
    EXPECT_EQ(module.share, y.modules.at(name).share) << name;
    EXPECT_EQ(module.rows, y.modules.at(name).rows) << name;
    EXPECT_EQ(module.digest, y.modules.at(name).digest) << name;
  }
}

class Speculation : public testing::Test {
 protected:
  void SetUp() override {
    CHIMERA_NEEDS_GOLDEN();
    world = std::make_unique<World>();
    tokenizer = must(Tokenizer::load(kGolden + "/tokenizers/tiny312/tokenizer.json"));
    all = world->table(1, {world->module("a"), world->module("b"), world->module("c")});
  }
  std::unique_ptr<Engine> make(bool guesses, EngineOptions options = {}) const {
    options.ngram_speculation = guesses;
    return must(Engine::create(world->backbone, tokenizer, all, options));
  }
  constraint::ConstraintPtr regex(const std::string& expression) const {
    const auto table = std::make_shared<const constraint::TokenTable>(
        tokenizer, world->config.vocab_size, world->config.eos_token_ids);
    return must(
        constraint::Constraint::compile({constraint::Spec::Kind::kRegex, expression}, table));
  }
  EngineRequest request(size_t number) const {
    EngineRequest one = greedy(repeated(3), kTokens);
    one.sampling.seed = 7 + number;
    one.top_logprobs = 2;
    one.want_shares = true;
    return one;
  }
  /// Answers that differ in what decides their tokens, and when they end.
  std::vector<EngineRequest> varied_requests() const {
    std::vector<EngineRequest> requests;
    for (size_t i = 0; i < 12; ++i) requests.push_back(request(i));
    requests[1].sampling.temperature = 0.4;
    requests[2].sampling.temperature = 1.0;
    requests[3].sampling.repetition_penalty = 1.3;
    requests[4].sampling.frequency_penalty = 0.3;
    requests[4].sampling.presence_penalty = 0.5;
    requests[5].sampling.logit_bias = {{17, 100.0}};
    requests[6].constraint = regex("(one two three ){3,9}");
    requests[7].constraint = regex("(~[xyz]){10,30}");
    requests[7].ignore_eos = requests[6].ignore_eos = false;
    requests[8].modules.only = {"a", "b"};
    requests[8].sampling.logit_bias = {{40, 100.0}};
    requests[9].modules.exclude = {"c"};
    requests[9].modules.bias = {{"a", 1.5f}};
    requests[9].sampling.temperature = 0.7;
    requests[9].sampling.top_p = 0.8;
    requests[10].stop = {"aaaaaaaaa"};  // in the middle of what a step gives
    requests[10].sampling.logit_bias = {{'a', 100.0}};
    requests[11].max_tokens = 7;
    requests[11].sampling.logit_bias = {{17, 100.0}};
    return requests;
  }
  /// The sinks of all requests, one after the other or at once, and what the engine counted.
  struct Run {
    std::vector<std::shared_ptr<Collector>> sinks;
    EngineStats stats;
  };
  Run run(Engine& engine, bool together) const {
    Run out;
    for (EngineRequest& one : varied_requests()) {
      out.sinks.push_back(submit(engine, std::move(one)));
      if (!together) out.sinks.back()->done();
    }
    for (const auto& sink : out.sinks) sink->done();
    out.stats = engine.stats();
    return out;
  }

  std::unique_ptr<World> world;
  std::shared_ptr<const Tokenizer> tokenizer;
  std::shared_ptr<const RoutingTable> all;
};

TEST_F(Speculation, ChangesNothingThatAnybodyIsTold) {
  for (const bool prefix_cache : {true, false}) {
    EngineOptions options;
    options.prefix_cache = prefix_cache;
    const Run plain = run(*make(false, options), false);
    EXPECT_EQ(plain.stats.drafted_tokens, 0u);
    for (const bool together : {false, true}) {
      if (together && prefix_cache) continue;  // who finds whose prefix is up to time
      const Run guessed = run(*make(true, options), together);
      for (size_t i = 0; i < plain.sinks.size(); ++i) {
        SCOPED_TRACE("request " + std::to_string(i));
        expect_same_answer(guessed.sinks[i]->done(), plain.sinks[i]->done());
        expect_same_events(*guessed.sinks[i], *plain.sinks[i]);
      }
      const EngineStats &x = guessed.stats, &y = plain.stats;
      EXPECT_GT(x.accepted_tokens, 60u);
      EXPECT_GT(x.drafted_tokens, x.accepted_tokens) << "none was wrong";
      EXPECT_EQ(x.generated_tokens, y.generated_tokens);
      EXPECT_EQ(x.cached_tokens, y.cached_tokens);
      ASSERT_EQ(x.router.layers.size(), y.router.layers.size());
      for (size_t l = 0; l < x.router.layers.size(); ++l) {
        EXPECT_EQ(x.router.layers[l].tokens, y.router.layers[l].tokens);
        EXPECT_EQ(x.router.layers[l].expert_tokens, y.router.layers[l].expert_tokens);
        for (const auto& [name, mass] : x.router.layers[l].mass)
          EXPECT_NEAR(mass, y.router.layers[l].mass.at(name), 1e-6);
      }
      if (!together) {
        EXPECT_EQ(x.steps + x.accepted_tokens, y.steps);
      }
    }
  }
}

TEST_F(Speculation, GuessesThatHoldSaveSteps) {
  auto engine = make(true);
  EngineRequest one = greedy(prompt(3, 9), kTokens);
  one.sampling.logit_bias = {{17, 100.0}};  // it says nothing else
  submit(*engine, one)->done();
  const EngineStats stats = engine->stats();
  EXPECT_EQ(stats.steps + stats.accepted_tokens, static_cast<uint64_t>(kTokens));
  // Three to begin with, then 1 + 2, 1 + 4, 1 + 8 and so on.
  EXPECT_LE(stats.steps, 15u);
  EXPECT_EQ(stats.kv_bytes_used, 0u);
}

TEST_F(Speculation, ACacheForOneContextServesManyStreamsWithTheSameTokens) {
  EngineOptions options;
  options.max_context = 128;
  options.prefix_cache = false;
  const Run plain = run(*make(false, options), false);
  options.kv_bytes = least_kv_bytes(world->config, options);
  const Run tight = run(*make(true, options), true);
  for (size_t i = 0; i < plain.sinks.size(); ++i)
    EXPECT_EQ(stream_of(tight.sinks[i]->done()), stream_of(plain.sinks[i]->done())) << i;
  EXPECT_GT(tight.stats.drafted_tokens, 0u);
  EXPECT_EQ(tight.stats.kv_bytes_used, 0u);
}

TEST_F(Speculation, ARevocationInMidAnswerTakesEffectBetweenTwoTokens) {
  const auto without = world->table(2, {world->module("b"), world->module("c")});
  EngineRequest one = greedy(repeated(3), 300);
  auto engine = make(true);
  Unhurried unhurried;
  const auto sink = submit(*engine, one, nullptr, unhurried.from(20));
  ASSERT_TRUE(sink->wait_tokens(20));
  ASSERT_TRUE(engine->revoke("a", without).ok());
  unhurried.go_on();
  const DoneEvent done = sink->done();
  ASSERT_EQ(done.epochs.size(), 2u);
  const auto kept = static_cast<ptrdiff_t>(done.epochs[1].from);
  EXPECT_GE(kept, 20);
  ASSERT_EQ(done.tokens.size(), 300u);

  const DoneEvent before = submit(*make(false), one)->done();
  EXPECT_TRUE(std::equal(done.tokens.begin(), done.tokens.begin() + kept, before.tokens.begin()));
  const auto plain = must(Engine::create(world->backbone, tokenizer, without, {}));
  EngineRequest rest = one;
  rest.tokens.insert(rest.tokens.end(), done.tokens.begin(), done.tokens.begin() + kept);
  rest.max_tokens -= kept;
  const DoneEvent after = submit(*plain, rest)->done();
  EXPECT_EQ(after.tokens, std::vector<int32_t>(done.tokens.begin() + kept, done.tokens.end()));
}

TEST_F(Speculation, CanariesAnswerAsWithout) {
  const auto canary = world->table(2, {world->module("b"), world->module("c")});
  const auto plain = must(Engine::create(world->backbone, tokenizer, canary, {}));
  auto engine = make(true);
  ASSERT_TRUE(engine->publish_canary(canary, 0.5, kPatience).ok());
  EngineRequest one = request(0);
  const Stream expected = stream_of(submit(*plain, one)->done());
  const DoneEvent on_canary = submit(*engine, one)->done();
  EXPECT_EQ(on_canary.epoch, 2u);
  EXPECT_EQ(stream_of(on_canary), expected);
  one.lot = ~uint64_t{0};
  const DoneEvent on_current = submit(*engine, one)->done();
  EXPECT_EQ(on_current.epoch, 1u);
  EXPECT_EQ(stream_of(on_current), stream_of(submit(*make(false), one)->done()));
  EXPECT_GT(engine->stats().drafted_tokens, 0u);
}

}  // namespace
}  // namespace chimera
