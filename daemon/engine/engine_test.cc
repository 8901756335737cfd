// The engine as a client of it sees it: continuations, text, scores, limits, ends.
#include "daemon/engine/engine.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>

#include <gmock/gmock.h>

#include "base/threads/background.h"
#include "base/threads/thread_pool.h"
#include "daemon/engine/testing.h"
#include "text/constraint/constraint.h"

namespace chimera {
namespace {

using namespace testing_support;
using testing::HasSubstr;

class EngineTest : public testing::Test {
 protected:
  void SetUp() override {
    CHIMERA_NEEDS_GOLDEN();
    world = std::make_unique<World>();
    all = world->table(1, {world->module("a"), world->module("b"), world->module("c")});
  }
  std::unique_ptr<Engine> make(EngineOptions options = {},
                               std::shared_ptr<const Tokenizer> tokenizer = nullptr) {
    return must(Engine::create(world->backbone, std::move(tokenizer), all, options));
  }
  static std::shared_ptr<const Tokenizer> tiny_tokenizer() {
    return must(Tokenizer::load(kGolden + "/tokenizers/tiny312/tokenizer.json"));
  }
  /// Greedy text of the prompt with an engine that has a tokenizer.
  static EngineRequest text_request(int64_t n) { return greedy(prompt(3, 9), n); }

  std::unique_ptr<World> world;
  std::shared_ptr<const RoutingTable> all;
};

TEST_F(EngineTest, SharesOfATokenAreThoseOfThePositionItWasDrawnFrom) {
  auto engine = make();
  EngineRequest request = greedy(prompt(3, 9), 4);
  request.want_shares = true;
  const auto sink = submit(*engine, request);
  const DoneEvent done = sink->done();
  ASSERT_EQ(sink->tokens().size(), 4u);
  // A score of all but the last token ran the very positions: what the answer's shares leave to the
  // prompt but its last position is what a score of it without that position has.
  std::map<std::string, double> sums;
  for (const TokenEvent& token : sink->tokens()) {
    double total = 0.0;
    for (const auto& [name, share] : token.shares) {
      total += share;
      sums[name] += share;
    }
    EXPECT_NEAR(total, 1.0, 1e-6);
  }
  EngineRequest score = greedy(prompt(3, 8), 1);
  score.kind = EngineRequest::Kind::kScore;
  const DoneEvent before = submit(*engine, score)->done();
  const double positions = 8 + 4;  // the last token was drawn, not run
  for (const auto& [name, module] : done.modules) {
    EXPECT_NEAR(module.share * positions, before.modules.at(name).share * 8 + sums[name], 1e-4)
        << name;
  }
}

TEST_F(EngineTest, TheSizeOfChunksChangesNoBit) {
  std::vector<Stream> streams;
  for (const auto& [chunk, lone] : {std::pair<int64_t, int64_t>{1, 0}, {5, 0}, {128, 0}, {3, 64}}) {
    EngineOptions options;
    options.prefill_chunk = chunk;
    options.lone_chunk = lone;
    const auto engine = make(options);
    streams.push_back(stream_of(submit(*engine, greedy(prompt(3, 60), 12))->done()));
  }
  for (const Stream& stream : streams) EXPECT_EQ(stream, streams.front());
}

// What it takes to find what a constraint allows is spread over the steps: its sequence waits, the
// others go on, and nothing comes out differently.
TEST_F(EngineTest, AConstraintThatTakesLongHoldsUpItsOwnSequenceAlone) {
  const auto tokenizer = tiny_tokenizer();
  const auto table = std::make_shared<const constraint::TokenTable>(
      tokenizer, world->config.vocab_size, world->config.eos_token_ids);
  const auto constrained = [&] {
    EngineRequest request = greedy(prompt(4, 9), 3);
    request.ignore_eos = false;
    request.constraint = must(constraint::Constraint::compile(
        {constraint::Spec::Kind::kRegex, "([a-z]{1,40}[a-z]{1,40}){20,40}"}, table));
    return request;
  };
  const auto alone = make({}, tokenizer);
  const Stream expected = stream_of(submit(*alone, constrained())->done());
  const Stream other = stream_of(submit(*alone, greedy(prompt(3, 9), 400))->done());

  EngineOptions options;
  options.mask_work = 4;
  auto engine = make(options, tokenizer);
  Mutex mutex;
  CondVar changed;
  bool both = false;
  size_t of_the_other = 0;
  const auto free = submit(*engine, greedy(prompt(3, 9), 400), nullptr, [&](const TokenEvent&) {
    const MutexLock lock(mutex);
    changed.wait(mutex, [&] { return both; });
    ++of_the_other;
  });
  const auto slow = submit(*engine, constrained(), nullptr, [&](const TokenEvent&) {
    // One with each step at most, and several steps until the next.
    const MutexLock lock(mutex);
    EXPECT_GE(of_the_other, 3u);
    of_the_other = 0;
  });
  {
    const MutexLock lock(mutex);
    both = true;
    changed.notify_all();
  }
  EXPECT_EQ(stream_of(slow->done()), expected);
  EXPECT_EQ(stream_of(free->done()), other);
}

TEST_F(EngineTest, SharesAreForThoseWhoAsk) {
  auto engine = make();
  const auto sink = submit(*engine, greedy(prompt(3, 9), 2));
  sink->done();
  for (const TokenEvent& token : sink->tokens()) EXPECT_TRUE(token.shares.empty());
}

TEST_F(EngineTest, ReportsWhatARequestCostAndWhoAnswered) {
  auto engine = make();
  EngineRequest request = greedy(prompt(1, 20), 12);
  request.modules.only = {"a", "b"};
  const auto sink = submit(*engine, request);
  const DoneEvent done = sink->done();
  EXPECT_EQ(done.prompt_tokens, 20);
  EXPECT_EQ(done.completion_tokens, 12);
  EXPECT_EQ(done.cached_tokens, 0);
  EXPECT_EQ(done.epoch, 1u);
  EXPECT_EQ(done.composition, all->digest());
  EXPECT_GT(done.prefill_ms, 0);
  EXPECT_GT(done.decode_ms, 0);
  EXPECT_GE(done.queue_ms, 0);
  ASSERT_EQ(done.modules.size(), 2u);  // c is not permitted
  EXPECT_EQ(done.modules.at("a").digest, "sha256:a-1");
  EXPECT_EQ(done.modules.at("b").version, "1");
  EXPECT_NEAR(done.backbone_share + done.modules.at("a").share + done.modules.at("b").share, 1.0,
              1e-6);
  EXPECT_GT(done.modules.at("a").share, 0.0);
  ASSERT_EQ(sink->tokens().size(), 12u);
  for (size_t i = 0; i < 12; ++i) {
    EXPECT_EQ(sink->tokens()[i].token, done.tokens[i]);
    EXPECT_EQ(sink->tokens()[i].logprob, done.logprobs[i]);
    EXPECT_EQ(sink->tokens()[i].epoch, 1u);
  }
  const EngineStats stats = engine->stats();
  EXPECT_EQ(stats.admitted, 1u);
  EXPECT_EQ(stats.finished, 1u);
  EXPECT_EQ(stats.prompt_tokens, 20u);
  EXPECT_EQ(stats.generated_tokens, 12u);
  EXPECT_EQ(stats.steps, 12u);
  EXPECT_GT(stats.step_ms_p50, 0.0);
  EXPECT_GE(stats.step_ms_p99, stats.step_ms_p50);
  ASSERT_EQ(stats.router.layers.size(), 3u);
  EXPECT_EQ(stats.router.layers[0].tokens, 31u);  // the last sampled token is never run
  EXPECT_EQ(stats.live, 0);
}

TEST_F(EngineTest, EosEndsUnlessIgnored) {
  auto engine = make();
  const DoneEvent free_run = submit(*engine, greedy(prompt(2, 8), 20))->done();
  // Makes the fifth token of that run the end: same model, its config names that id as eos.
  auto config = world->config;
  const int32_t eos = free_run.tokens[4];
  const auto first =
      std::find(free_run.tokens.begin(), free_run.tokens.end(), eos) - free_run.tokens.begin();
  const std::string dir = testing::TempDir() + "/engine_eos";
  std::filesystem::remove_all(dir);
  std::filesystem::create_directories(dir);
  const std::string from = kGolden + "/models/flex_olmo_f32";
  std::filesystem::copy(from + "/model.safetensors", dir + "/model.safetensors");
  std::ifstream in(from + "/config.json");
  std::string text((std::istreambuf_iterator<char>(in)), {});
  const std::string key = "\"eos_token_id\": 257";
  ASSERT_NE(text.find(key), std::string::npos);
  text.replace(text.find(key), key.size(), fmt::format("\"eos_token_id\": {}", eos));
  std::ofstream(dir + "/config.json") << text;
  const auto files = must(Checkpoint::open(dir, Residency::kCopied));
  auto other = must(Engine::create(must(Backbone::load(files, Precision::kF32)), nullptr, all, {}));
  EngineRequest request = greedy(prompt(2, 8), 20);
  EXPECT_EQ(submit(*other, request)->done().finish_reason, FinishReason::kLength);
  request.ignore_eos = false;
  const DoneEvent stopped = submit(*other, request)->done();
  EXPECT_EQ(stopped.finish_reason, FinishReason::kStop);
  EXPECT_EQ(stopped.tokens,
            std::vector<int32_t>(free_run.tokens.begin(), free_run.tokens.begin() + first + 1));
  std::filesystem::remove_all(dir);
}

TEST_F(EngineTest, TextOfTheEventsIsTheTextOfTheTokens) {
  const auto tokenizer = tiny_tokenizer();
  auto engine = make({}, tokenizer);
  const auto sink = submit(*engine, text_request(40));
  const DoneEvent done = sink->done();
  std::string joined;
  for (const TokenEvent& event : sink->tokens()) {
    if (!event.text.empty()) {  // never the second half of a character
      EXPECT_NE(static_cast<unsigned char>(event.text[0]) & 0xC0, 0x80);
    }
    joined += event.text;
  }
  EXPECT_EQ(joined, done.text);
  // The model's vocabulary is padded past the tokenizer's; ids up there have no text.
  std::vector<int32_t> known = done.tokens;
  std::erase_if(known, [&](int32_t id) { return id >= tokenizer->vocab_size(); });
  EXPECT_EQ(done.text, must(tokenizer->decode(known, true)));
  EXPECT_FALSE(done.text.empty());
}

TEST_F(EngineTest, StopStringsEndTheTextInFrontOfThem) {
  auto engine = make({}, tiny_tokenizer());
  const std::string full = submit(*engine, text_request(40))->done().text;
  ASSERT_GT(full.size(), 12u);
  int tried = 0;
  for (size_t at = 1; at + 4 < full.size(); ++at) {
    const auto byte = static_cast<unsigned char>(full[at]);
    if ((byte & 0xC0) == 0x80) continue;  // not the first byte of a character
    EngineRequest request = text_request(40);
    request.stop = {"never found", full.substr(at, 4)};
    const auto sink = submit(*engine, request);
    const DoneEvent done = sink->done();
    EXPECT_EQ(done.text, full.substr(0, full.find(full.substr(at, 4))));
    std::string joined;
    for (const TokenEvent& event : sink->tokens()) joined += event.text;
    EXPECT_EQ(joined, done.text);
    EXPECT_EQ(done.finish_reason, FinishReason::kStop);
    if (++tried == 12) break;
  }
  EXPECT_GT(tried, 0);
}

TEST_F(EngineTest, SampledTokensDoNotDependOnTheBatch) {
  EngineRequest request = greedy(prompt(4, 11), 24);
  request.sampling = {0.9, 0.95, 40, 0.0, 1.1, 77};
  Stream alone;
  {
    auto engine = make();
    alone = stream_of(submit(*engine, request)->done());
  }
  auto engine = make();
  std::vector<std::shared_ptr<Collector>> crowd;
  for (int i = 0; i < 10; ++i)
    crowd.push_back(submit(*engine, greedy(prompt(i, 5 + static_cast<size_t>(i) * 7), 30)));
  EXPECT_EQ(stream_of(submit(*engine, request)->done()), alone);
  request.sampling.seed = 78;
  EXPECT_NE(stream_of(submit(*engine, request)->done()).tokens, alone.tokens);
  for (auto& sink : crowd) sink->done();
}

// With biases, penalties and alternatives as well: all of them look at the request's own row alone.
TEST_F(EngineTest, AdjustedTokensAndAlternativesDoNotDependOnTheBatch) {
  EngineRequest request = greedy(prompt(4, 11), 24);
  request.sampling = {0.9, 1.0, 0, 0.0, 1.0, 77, 0.7, 0.4, {{3, -100.0}, {9, 2.0}}};
  request.top_logprobs = 4;
  DoneEvent alone;
  {
    auto engine = make();
    alone = submit(*engine, request)->done();
  }
  ASSERT_EQ(alone.top_logprobs.size(), alone.tokens.size());
  auto engine = make();
  std::vector<std::shared_ptr<Collector>> crowd;
  for (int i = 0; i < 10; ++i)
    crowd.push_back(submit(*engine, greedy(prompt(i, 5 + static_cast<size_t>(i) * 7), 30)));
  const auto sink = submit(*engine, request);
  const DoneEvent crowded = sink->done();
  EXPECT_EQ(stream_of(crowded), stream_of(alone));
  for (size_t i = 0; i < alone.tokens.size(); ++i) {
    ASSERT_EQ(alone.top_logprobs[i].size(), 4u);
    for (size_t j = 0; j < 4; ++j) {
      EXPECT_EQ(crowded.top_logprobs[i][j].token, alone.top_logprobs[i][j].token);
      EXPECT_EQ(crowded.top_logprobs[i][j].logprob, alone.top_logprobs[i][j].logprob);
    }
    EXPECT_EQ(sink->tokens()[i].top.size(), 4u);
  }
  for (auto& other : crowd) other->done();
}

// Greedy with alternatives takes the first of them, and a ban takes the next.
TEST_F(EngineTest, ABannedTokenGivesWayToTheNextBest) {
  auto engine = make();
  EngineRequest request = greedy(prompt(2, 8), 1);
  request.top_logprobs = 2;
  const DoneEvent free_run = submit(*engine, request)->done();
  ASSERT_EQ(free_run.top_logprobs.at(0).size(), 2u);
  EXPECT_EQ(free_run.tokens.at(0), free_run.top_logprobs[0][0].token);
  EXPECT_EQ(free_run.logprobs.at(0), free_run.top_logprobs[0][0].logprob);
  request.sampling.logit_bias = {{free_run.tokens[0], -100.0}};
  const DoneEvent banned = submit(*engine, request)->done();
  EXPECT_EQ(banned.tokens.at(0), free_run.top_logprobs[0][1].token);
  // Logprobs are the model's own, whatever was asked of the sampling.
  EXPECT_EQ(banned.logprobs.at(0), free_run.top_logprobs[0][1].logprob);
}

TEST_F(EngineTest, RefusesWhatCanNeverRun) {
  EngineOptions options;
  options.max_context = 32;
  auto engine = make(options);
  const auto refuse = [&](auto change) {
    EngineRequest request = greedy(prompt(1, 4), 4);
    change(request);
    auto sink = std::make_shared<Collector>();
    const Status status = engine->submit(request, sink).status();
    EXPECT_EQ(sink->terminals(), 0);
    EXPECT_FALSE(status.hint().empty());
    return fmt::format("{}: {}", code_name(status.code()), status.message());
  };
  EXPECT_THAT(refuse([](EngineRequest& r) { r.tokens.clear(); }),
              HasSubstr("invalid_argument: the request has no tokens"));
  EXPECT_THAT(refuse([](EngineRequest& r) { r.tokens[2] = 320; }),
              HasSubstr("tokens[2] is 320 (expected 0 to 319"));
  EXPECT_THAT(refuse([](EngineRequest& r) { r.tokens[0] = -1; }), HasSubstr("tokens[0] is -1"));
  EXPECT_THAT(refuse([](EngineRequest& r) { r.tokens = prompt(1, 32); }),
              HasSubstr("the prompt has 32 tokens (expected fewer than 32"));
  EXPECT_THAT(refuse([](EngineRequest& r) { r.max_tokens = 0; }), HasSubstr("max_tokens is 0"));
  EXPECT_THAT(refuse([](EngineRequest& r) { r.sampling.top_p = 2; }), HasSubstr("top_p is 2"));
  EXPECT_THAT(refuse([](EngineRequest& r) { r.stop = {"x"}; }), HasSubstr("no tokenizer"));
  EXPECT_THAT(refuse([](EngineRequest& r) {
                r.sampling.logit_bias = {{320, 1.0}};
              }),
              HasSubstr("logit_bias.320 (expected token ids from 0 to 319"));
  EXPECT_THAT(
      refuse([](EngineRequest& r) {
        r.modules.only = {"a", "legal"};
      }),
      HasSubstr(
          "not_found: modules.only: module \"legal\" is not loaded (loaded: backbone, a, b, c)"));
  EXPECT_THAT(refuse([](EngineRequest& r) { r.modules.exclude = {"x"}; }),
              HasSubstr("not_found: modules.exclude"));
  EXPECT_THAT(refuse([](EngineRequest& r) { r.modules.bias["x"] = 1; }),
              HasSubstr("not_found: modules.bias"));
  EXPECT_THAT(refuse([](EngineRequest& r) { r.modules.bias["a"] = std::nanf(""); }),
              HasSubstr("finite"));
  EXPECT_THAT(refuse([](EngineRequest& r) { r.modules.exclude = {"backbone"}; }),
              HasSubstr("invalid_argument"));
  EXPECT_THAT(refuse([](EngineRequest& r) {
                r.kind = EngineRequest::Kind::kScore;
                r.tokens = prompt(1, 33);
              }),
              HasSubstr("33 tokens (expected at most 32"));
  EXPECT_EQ(engine->stats().rejected, 14u);
  // The longest prompt that fits is answered, cut to the context.
  const DoneEvent done = submit(*engine, greedy(prompt(1, 30), 100))->done();
  EXPECT_EQ(done.completion_tokens, 2);
  EXPECT_EQ(done.finish_reason, FinishReason::kLength);
}

TEST_F(EngineTest, FullQueueIsAnsweredAtOnce) {
  EngineOptions options;
  options.max_sequences = 1;
  options.max_queue = 2;
  auto engine = make(options);
  Engine::RequestId first = 0;
  const auto busy = submit(*engine, greedy(prompt(1, 4), 1500), &first, slowly);
  ASSERT_TRUE(busy->wait_tokens(1));  // it left the queue
  const auto w1 = submit(*engine, greedy(prompt(2, 4), 2));
  Engine::RequestId second = 0;
  const auto w2 = submit(*engine, greedy(prompt(3, 4), 2), &second);
  const Status full =
      engine->submit(greedy(prompt(4, 4), 2), std::make_shared<Collector>()).status();
  EXPECT_EQ(full.code(), Code::kResourceExhausted);
  EXPECT_THAT(full.message(), HasSubstr("2 requests wait (limit 2"));
  engine->cancel(second);  // waiting ones can be cancelled, too
  EXPECT_EQ(w2->done().finish_reason, FinishReason::kCancelled);
  engine->cancel(first);
  EXPECT_EQ(w1->done().finish_reason, FinishReason::kLength);
}

TEST_F(EngineTest, CancelAndDeadlineEndARequestEarly) {
  EngineOptions options;
  options.max_sequences = 1;
  auto engine = make(options);
  Engine::RequestId id = 0;
  const auto cancelled = submit(*engine, greedy(prompt(1, 4), 2000), &id, slowly);
  ASSERT_TRUE(cancelled->wait_tokens(3));
  EngineRequest late = greedy(prompt(2, 4), 2000);
  late.deadline = std::chrono::steady_clock::now() + 20ms;  // passes while it waits
  const auto waiting = submit(*engine, late);
  EXPECT_EQ(waiting->done().finish_reason, FinishReason::kDeadline);
  EXPECT_EQ(waiting->done().completion_tokens, 0);
  engine->cancel(id);
  const DoneEvent done = cancelled->done();
  EXPECT_EQ(done.finish_reason, FinishReason::kCancelled);
  EXPECT_LT(done.completion_tokens, 2000);
  EXPECT_EQ(done.tokens.size(), cancelled->tokens().size());
  // Passes while it runs: the machine may be too busy to begin within the first of these.
  DoneEvent running;
  for (auto allowed = 500ms; allowed < 60s && running.completion_tokens == 0; allowed *= 4) {
    late.deadline = std::chrono::steady_clock::now() + allowed;
    running = submit(*engine, late, nullptr, slowly)->done();
    EXPECT_EQ(running.finish_reason, FinishReason::kDeadline);
  }
  EXPECT_GT(running.completion_tokens, 0);
  engine->cancel(id);      // long over
  engine->cancel(999999);  // never was
  const EngineStats stats = engine->stats();
  EXPECT_EQ(stats.cancelled, 1u);
  EXPECT_EQ(stats.kv_blocks_free, stats.kv_blocks_total);
}

TEST_F(EngineTest, DrainWaitsForTheLiveAndRefusesTheNew) {
  auto engine = make();
  const auto sink = submit(*engine, greedy(prompt(1, 4), 100), nullptr, slowly);
  EXPECT_FALSE(engine->drain(0ms));
  const Status refused =
      engine->submit(greedy(prompt(1, 4), 1), std::make_shared<Collector>()).status();
  EXPECT_EQ(refused.code(), Code::kUnavailable);
  EXPECT_TRUE(engine->drain(60s));
  EXPECT_EQ(sink->terminals(), 1);
  EXPECT_EQ(sink->done().completion_tokens, 100);
}

TEST_F(EngineTest, DestructionEndsEverybodyWithCancelled) {
  EngineOptions options;
  options.max_sequences = 2;
  auto engine = make(options);
  std::vector<std::shared_ptr<Collector>> sinks;
  for (int i = 0; i < 6; ++i)
    sinks.push_back(submit(*engine, greedy(prompt(i, 4), 1900), nullptr, slowly));
  ASSERT_TRUE(sinks[0]->wait_tokens(2));
  engine.reset();
  for (auto& sink : sinks) {
    EXPECT_EQ(sink->terminals(), 1);
    EXPECT_EQ(sink->error().code(), Code::kCancelled);
  }
}

TEST_F(EngineTest, ScoreStartsOverIsWholeAndBounded) {
  auto engine = make();
  EngineRequest score = greedy({5}, 1);
  score.kind = EngineRequest::Kind::kScore;
  const DoneEvent one = submit(*engine, score)->done();  // nothing to score
  EXPECT_EQ(one.count, 0);
  EXPECT_EQ(one.nats, 0.0);
  EXPECT_FALSE(one.bits_per_byte.has_value());
  score.tokens = prompt(8, 100);
  Engine::RequestId id = 0;
  const DoneEvent first = submit(*engine, score)->done();
  const DoneEvent again = submit(*engine, score, &id)->done();
  EXPECT_EQ(first.nats, again.nats);  // bitwise
  EXPECT_EQ(first.logprobs, again.logprobs);
  EXPECT_EQ(again.cached_tokens, 0);
  EXPECT_EQ(first.logprobs.size(), 99u);
  const ProbeResult probe = must(probe_score(*world->backbone, all, score.tokens));
  EXPECT_TRUE(probe.finite);
  EXPECT_NEAR(probe.nats, first.nats, 1e-9);
  EXPECT_EQ(probe.logits_digest,
            must(probe_score(*world->backbone, all, score.tokens)).logits_digest);
  score.tokens[50] += 1;
  EXPECT_NE(probe.logits_digest,
            must(probe_score(*world->backbone, all, score.tokens)).logits_digest);
}

/// An expert around another one that tells with how many threads it is called.
class WatchedExpert final : public Expert {
 public:
  WatchedExpert(ExpertPtr inner, std::function<void(int threads)> called)
      : inner_(std::move(inner)), called_(std::move(called)) {}
  Status forward(const float* x, int64_t rows, float* y, ExpertContext& ctx) const override {
    called_(ctx.pool.threads());
    return inner_->forward(x, rows, y, ctx);
  }
  uint64_t resident_bytes() const override { return inner_->resident_bytes(); }

 private:
  const ExpertPtr inner_;
  const std::function<void(int threads)> called_;
};

TEST_F(EngineTest, AProbeGoesOnWithOneThreadOnceAStreamIsThere) {
  Foreground foreground;
  std::vector<int> threads;
  const auto watched = [&](int64_t, size_t, ExpertPtr inner) -> ExpertPtr {
    return std::make_shared<WatchedExpert>(inner, [&](int n) {
      threads.push_back(n);
      foreground.set_busy(true);  // in its first pass
    });
  };
  const auto table = world->table(1, {world->module("a", "1", 50.0f, watched)});
  const BackgroundScope scope(&foreground);
  const std::vector<int32_t> tokens = prompt(8, 100);
  const ProbeResult once = must(probe_score(*world->backbone, table, tokens));
  ASSERT_GT(threads.size(), 1u);
  EXPECT_EQ(threads.front(), auto_threads());
  EXPECT_EQ(threads.back(), 1);
  threads.clear();
  const ProbeResult again = must(probe_score(*world->backbone, table, tokens));
  EXPECT_EQ(threads.front(), 1);
  EXPECT_EQ(again.logits_digest, once.logits_digest);
  EXPECT_EQ(again.nats, once.nats);
}

TEST_F(EngineTest, PoisonedExpertEndsOnlyTheRequestsThatUseIt) {
  const auto poison = [](int64_t layer, size_t, ExpertPtr inner) -> ExpertPtr {
    if (layer != 1) return inner;
    return std::make_shared<HookedExpert>(inner, nullptr, [](int64_t rows, float* y) {
      for (int64_t r = 0; r < rows; ++r) y[r * 64 + 3] = std::nanf("");
    });
  };
  const auto bad = world->module("a", "bad", 50.0f, poison);
  auto engine = must(
      Engine::create(world->backbone, nullptr, world->table(1, {bad, world->module("b")}), {}));
  EngineRequest clean = greedy(prompt(6, 20), 60);
  clean.modules.exclude = {"a"};
  const Stream alone = stream_of(submit(*engine, clean)->done());
  std::vector<std::shared_ptr<Collector>> good, poisoned;
  for (int i = 0; i < 5; ++i) {
    good.push_back(submit(*engine, clean));
    poisoned.push_back(submit(*engine, greedy(prompt(6, 20), 60)));
  }
  for (auto& sink : poisoned) {
    const Status status = sink->error();
    EXPECT_FALSE(status.ok());
    EXPECT_THAT(status.message(), HasSubstr("a"));
  }
  for (auto& sink : good) EXPECT_EQ(stream_of(sink->done()), alone);
  EXPECT_EQ(engine->stats().failed, 5u);
  EXPECT_FALSE(must(probe_score(*world->backbone, engine->table(), prompt(6, 20))).finite);
}

TEST_F(EngineTest, RefusesBadOptions) {
  EngineOptions options;
  options.prefill_chunk = 0;
  const auto engine = Engine::create(world->backbone, nullptr, all, options);
  EXPECT_THAT(engine.status().message(), HasSubstr("prefill_chunk is 0"));
}

}  // namespace
}  // namespace chimera
