// Tables changing under live sequences: the invariants of design §5 and the rules of pin, restart
// and revoke.
#include <atomic>
#include <filesystem>
#include <random>
#include <thread>

#include <gmock/gmock.h>

#include "daemon/engine/engine.h"
#include "daemon/engine/testing.h"

namespace chimera {
namespace {

using namespace testing_support;
using testing::HasSubstr;

/// Of changes that come through: they may have to wait for the slowest of the streams.
constexpr auto kPatience = 100s;

class EngineEpochs : public testing::Test {
 protected:
  void SetUp() override {
    CHIMERA_NEEDS_GOLDEN();
    world = std::make_unique<World>();
    a = world->module("a");
    b = world->module("b");
    b2 = world->module("b", "2", 0.5f);
    c = world->module("c");
  }
  std::unique_ptr<Engine> make(std::shared_ptr<const RoutingTable> table,
                               EngineOptions options = {}) {
    return must(Engine::create(world->backbone, nullptr, std::move(table), options));
  }
  Stream alone(std::shared_ptr<const RoutingTable> table, const EngineRequest& request) {
    EngineOptions options;
    options.prefix_cache = false;
    return stream_of(submit(*make(std::move(table), options), request)->done());
  }

  std::unique_ptr<World> world;
  std::shared_ptr<Module> a, b, b2, c;
};

// Invariant 3. Version v of module "c" is chosen by every token in every layer and writes down
// (layer, version). With one sequence each pass is layers 0, 1, 2; all of one version.
TEST_F(EngineEpochs, EveryPassUsesOneTableInAllLayers) {
  struct Call {
    int64_t layer;
    int version;
  };
  std::vector<Call> calls;  // written on the engine thread, read after it is gone
  const auto version = [&](int v) {
    return world->module("c", std::to_string(v), 50.0f,
                         [&calls, v](int64_t layer, size_t, ExpertPtr inner) -> ExpertPtr {
                           return std::make_shared<HookedExpert>(
                               inner, [&calls, layer, v](int64_t, float*) {
                                 calls.push_back({layer, v});
                                 // Room for a publish to fall into the pass; the first versions
                                 // wait for the next.
                                 std::this_thread::sleep_for(v < 8 ? 500us : 50us);
                               });
                         });
  };
  constexpr int kVersions = 60;
  auto engine = make(world->table(1, {version(1)}));
  const auto sink = submit(*engine, greedy(prompt(1, 10), 2000));
  ASSERT_TRUE(sink->wait_tokens(1));
  for (int v = 2; v <= kVersions && sink->terminals() == 0; ++v) {
    ASSERT_TRUE(engine
                    ->publish(world->table(static_cast<uint64_t>(v), {version(v)}),
                              InFlight::kRestart, kPatience)
                    .ok());
    std::this_thread::sleep_for(std::chrono::microseconds(v * 37 % 400));
  }
  engine.reset();
  std::vector<int> used;
  ASSERT_EQ(calls.size() % 3, 0u);
  for (size_t i = 0; i < calls.size(); i += 3) {
    for (int64_t layer = 0; layer < 3; ++layer) {
      const Call& call = calls[i + static_cast<size_t>(layer)];
      ASSERT_EQ(call.layer, layer);
      ASSERT_EQ(call.version, calls[i].version) << "pass " << i / 3 << " mixes two tables";
    }
    if (used.empty() || used.back() != calls[i].version) used.push_back(calls[i].version);
  }
  EXPECT_TRUE(std::is_sorted(used.begin(), used.end()));
  EXPECT_GT(used.size(), 5u) << "the test saw too few changes";
}

// Invariant 4.
TEST_F(EngineEpochs, NoPassTouchesAModuleAfterItsRevocation) {
  for (int round = 0; round < 6; ++round) {
    SCOPED_TRACE(round);
    std::atomic<bool> revoked{false};
    std::atomic<int> calls{0}, late{0};
    auto bad = world->module("a", "1", 50.0f, [&](int64_t, size_t, ExpertPtr inner) -> ExpertPtr {
      return std::make_shared<HookedExpert>(inner, [&](int64_t, float*) {
        ++calls;
        if (revoked) ++late;
      });
    });
    const std::weak_ptr<const Module> watch = bad;
    auto engine = make(world->table(1, {bad, b}));
    bad.reset();
    std::vector<std::shared_ptr<Collector>> free_choice, only_it, without;
    const auto running_at_the_revocation = [&](const TokenEvent& event) {
      if (!revoked) slowly(event);
    };
    const auto submit_slow = [&](const EngineRequest& request) {
      return submit(*engine, request, nullptr, running_at_the_revocation);
    };
    for (int i = 0; i < 3; ++i) {
      EngineRequest request = greedy(prompt(i, 6 + static_cast<size_t>(round) * 5), 60);
      free_choice.push_back(submit_slow(request));
      request.modules.only = {"a"};
      only_it.push_back(submit_slow(request));
      request.modules.only.reset();
      request.modules.exclude = {"a"};
      without.push_back(submit_slow(request));
    }
    ASSERT_TRUE(free_choice[0]->wait_tokens(static_cast<size_t>(1 + round * 3)));
    ASSERT_TRUE(engine->revoke("a", world->table(2, {b})).ok());
    revoked = true;
    EXPECT_TRUE(watch.expired()) << "something still holds the module";
    EXPECT_GT(calls, 0);
    for (auto& sink : free_choice) {
      const DoneEvent done = sink->done();
      EXPECT_EQ(done.finish_reason, FinishReason::kLength);
      EXPECT_EQ(done.completion_tokens, 60);
      EXPECT_EQ(done.epoch, 2u);
    }
    // The first one ran on it for sure: its use is part of the answer.
    const DoneEvent used = free_choice[0]->done();
    ASSERT_TRUE(used.modules.count("a"));
    EXPECT_GT(used.modules.at("a").share, 0.0);
    for (auto& sink : only_it) {
      // The backbone remains permitted: they go on with it alone.
      const DoneEvent done = sink->done();
      EXPECT_EQ(done.finish_reason, FinishReason::kLength);
      EXPECT_EQ(done.completion_tokens, 60);
    }
    for (auto& sink : without) {
      EXPECT_EQ(sink->done().completion_tokens, 60);
      EXPECT_EQ(sink->done().modules.count("a"), 0u);
    }
    engine.reset();
    EXPECT_EQ(late, 0);
  }
}

TEST_F(EngineEpochs, RevocationAlsoEndsPinnedAndWaitingUse) {
  EngineOptions options;
  options.max_sequences = 2;
  auto engine = make(world->table(1, {a, b}), options);
  EngineRequest no_a = greedy(prompt(2, 6), 1500);
  no_a.modules.exclude = {"a"};
  const auto pinned = submit(*engine, no_a);
  const auto other = submit(*engine, greedy(prompt(1, 6), 1500), nullptr, slowly);
  EngineRequest only_a = greedy(prompt(3, 6), 5);
  only_a.modules.only = {"a"};
  const auto waiting = submit(*engine, only_a);
  ASSERT_TRUE(other->wait_tokens(1));
  // b changes: both sequences stay on table 1, which holds a.
  const std::weak_ptr<const Module> watch = a;
  ASSERT_TRUE(engine->publish(world->table(2, {a, b2}), InFlight::kPin, kPatience).ok());
  a.reset();
  ASSERT_TRUE(engine->revoke("a", world->table(3, {b2})).ok());
  EXPECT_TRUE(watch.expired());
  ASSERT_EQ(engine->epochs().size(), 1u);
  EXPECT_EQ(engine->epochs()[0].epoch, 3u);
  EXPECT_EQ(engine->epochs()[0].sequences, 2);
  EXPECT_TRUE(engine->epochs()[0].current);
  EXPECT_EQ(engine->stats().restarted, 2u);
  EXPECT_EQ(waiting->terminals(), 0);  // the backbone is left to it, once a slot is free
  EXPECT_EQ(other->terminals(), 0);
}

TEST_F(EngineEpochs, ARequestWithNothingLeftEndsAsRevoked) {
  // A backbone without experts of its own.
  const World bare("flex_olmo_f32", 0);
  auto mine = bare.module("a");
  const auto other = bare.module("b");
  EngineOptions options;
  options.max_sequences = 1;
  auto engine = must(Engine::create(bare.backbone, nullptr, bare.table(1, {mine, other}), options));
  EngineRequest only_a = greedy(prompt(1, 6), 1500);
  only_a.modules.only = {"a"};
  const auto running = submit(*engine, only_a, nullptr, slowly);
  const auto waiting = submit(*engine, only_a);
  ASSERT_TRUE(running->wait_tokens(1));
  mine.reset();
  ASSERT_TRUE(engine->revoke("a", bare.table(2, {other})).ok());
  EXPECT_EQ(running->done().finish_reason, FinishReason::kRevoked);
  EXPECT_EQ(waiting->done().finish_reason,
            FinishReason::kRevoked);  // at once, not when a slot is free
  EXPECT_EQ(waiting->done().completion_tokens, 0);
}

// Invariant 2: a request that named the module alone goes on as if it had named none.
TEST_F(EngineEpochs, OnlyTheRevokedModuleGoesOnWithTheBackboneBitwise) {
  EngineRequest only_a = greedy(prompt(1, 8), 80);
  only_a.modules.only = {"a"};
  auto engine = make(world->table(1, {a, b}));
  const auto sink = submit(*engine, only_a, nullptr, slowly);
  ASSERT_TRUE(sink->wait_tokens(3));
  a.reset();
  ASSERT_TRUE(engine->revoke("a", world->table(2, {b})).ok());
  const DoneEvent done = sink->done();
  ASSERT_EQ(done.finish_reason, FinishReason::kLength);
  ASSERT_EQ(done.completion_tokens, 80);
  const std::vector<TokenEvent> tokens = sink->tokens();
  const auto moved = std::find_if(tokens.begin(), tokens.end(),
                                  [](const TokenEvent& token) { return token.epoch == 2; });
  ASSERT_NE(moved, tokens.begin()) << "nothing came from the module";
  ASSERT_NE(moved, tokens.end());

  EngineRequest backbone = greedy(only_a.tokens, tokens.end() - moved);
  for (auto it = tokens.begin(); it != moved; ++it) backbone.tokens.push_back(it->token);
  backbone.modules.only.emplace();
  const auto bare = make(world->table(1, {}));
  const auto rest = submit(*bare, backbone);
  const std::vector<int32_t> alone = rest->done().tokens;
  for (size_t i = 0; i < alone.size(); ++i)
    EXPECT_EQ(moved[static_cast<int64_t>(i)].token, alone[i]);
}

// Invariant 5.
TEST_F(EngineEpochs, PinnedStreamsAreBitwiseTheSameInACrowdWithSwaps) {
  const auto first = world->table(1, {a, b, c});
  std::vector<EngineRequest> requests;
  for (int i = 0; i < 6; ++i) {
    EngineRequest request = greedy(prompt(i, 4 + static_cast<size_t>(i) * 9), 150);
    if (i % 3 == 1) request.modules.exclude = {"b"};
    if (i % 3 == 2) request.modules.only = {"a"};
    requests.push_back(request);
  }
  std::vector<Stream> quiet;
  for (const EngineRequest& request : requests) quiet.push_back(alone(first, request));

  EngineOptions options;
  options.max_live_epochs = 1000;
  options.prefill_chunk = 16;
  options.threads = 2;
  std::atomic<uint64_t> published{1};
  auto engine = make(first, options);
  std::vector<std::shared_ptr<Collector>> sinks, crowd;
  for (const EngineRequest& request : requests) {
    sinks.push_back(submit(*engine, request, nullptr, [&](const TokenEvent& event) {
      if (published <= 6) slowly(event);  // they live to see some changes
    }));
  }
  for (const auto& sink : sinks) ASSERT_TRUE(sink->wait_tokens(1));  // admitted, so on table 1
  std::atomic<bool> stop{false};
  uint64_t epoch = 1;
  std::thread swapper([&] {
    while (!stop) {
      ++epoch;
      std::vector<std::shared_ptr<const Module>> modules{a};
      if (epoch % 2) modules.push_back(epoch % 4 == 1 ? b : b2);
      if (epoch % 3) modules.push_back(c);
      ASSERT_TRUE(engine->publish(world->table(epoch, modules), InFlight::kPin, kPatience).ok());
      published = epoch;
      std::this_thread::sleep_for(500us);
    }
  });
  for (int i = 0; i < 8; ++i) crowd.push_back(submit(*engine, greedy(prompt(50 + i, 30), 40)));
  for (size_t i = 0; i < sinks.size(); ++i) {
    SCOPED_TRACE(i);
    const DoneEvent done = sinks[i]->done();
    EXPECT_EQ(stream_of(done), quiet[i]);
    // Whoever may use everything is on tables of its first composition alone, however often these
    // come back; {a} is the same on all tables and moves along.
    if (i % 3 == 0) {
      EXPECT_EQ(done.composition, first->digest());
    }
    if (i % 3 == 2) {
      EXPECT_GT(done.epoch, 1u);
    }
  }
  for (auto& sink : crowd) EXPECT_EQ(sink->done().completion_tokens, 40);
  stop = true;
  swapper.join();
  EXPECT_GT(epoch, 5u);
}

TEST_F(EngineEpochs, SequencesThatCannotDifferMoveAlongAtOnce) {
  auto engine = make(world->table(1, {a, b}));
  EngineRequest request = greedy(prompt(1, 6), 1500);
  request.modules.only = {"a"};
  Engine::RequestId id = 0;
  const auto sink = submit(*engine, request, &id, slowly);
  ASSERT_TRUE(sink->wait_tokens(1));
  ASSERT_TRUE(engine->publish(world->table(2, {a, b2, c}), InFlight::kPin, kPatience).ok());
  EXPECT_EQ(engine->epochs().size(), 1u);
  EXPECT_EQ(engine->epochs()[0].epoch, 2u);
  EXPECT_EQ(engine->stats().restarted, 0u);
  const size_t before = sink->tokens().size();
  ASSERT_TRUE(sink->wait_tokens(before + 3));
  EXPECT_EQ(sink->tokens().back().epoch, 2u);
  engine->cancel(id);
  EXPECT_EQ(sink->done().epoch, 2u);
}

TEST_F(EngineEpochs, RestartGoesOnWithoutLosingOrRepeatingAToken) {
  // The reference: what the old table gave up to the change, then the new table's continuation of
  // prompt and these tokens.
  const auto old_table = world->table(1, {a, b});
  const auto new_table = world->table(2, {a, b2, c});
  auto engine = make(old_table);
  std::atomic<bool> published{false};
  const auto sink =
      submit(*engine, greedy(prompt(5, 21), 200), nullptr, [&](const TokenEvent& event) {
        if (!published) slowly(event);
      });
  ASSERT_TRUE(sink->wait_tokens(5));
  ASSERT_TRUE(engine->publish(new_table, InFlight::kRestart, kPatience).ok());
  published = true;
  const DoneEvent done = sink->done();
  EXPECT_EQ(engine->stats().restarted, 1u);
  ASSERT_EQ(done.completion_tokens, 200);
  const auto events = sink->tokens();
  ASSERT_EQ(events.size(), 200u);
  size_t change = 0;
  while (events[change].epoch == 1) ++change;
  ASSERT_GE(change, 5u);
  ASSERT_LT(change, 200u);
  for (size_t i = change; i < events.size(); ++i) ASSERT_EQ(events[i].epoch, 2u);
  const Stream before = alone(old_table, greedy(prompt(5, 21), static_cast<int64_t>(change)));
  std::vector<int32_t> history = prompt(5, 21);
  history.insert(history.end(), before.tokens.begin(), before.tokens.end());
  const Stream after = alone(new_table, greedy(history, static_cast<int64_t>(200 - change)));
  Stream joined = before;
  joined.tokens.insert(joined.tokens.end(), after.tokens.begin(), after.tokens.end());
  joined.logprobs.insert(joined.logprobs.end(), after.logprobs.begin(), after.logprobs.end());
  EXPECT_EQ(stream_of(done), joined);
}

TEST_F(EngineEpochs, RestartedScoreIsThatOfTheNewTableAlone) {
  const auto new_table = world->table(2, {b2, c});
  EngineOptions options;
  options.prefill_chunk = 4;
  EngineRequest score = greedy(prompt(9, 600), 1);
  score.kind = EngineRequest::Kind::kScore;
  score.want_routing = score.want_logits = true;
  const DoneEvent want = submit(*make(new_table, options), score)->done();
  // Slow enough that the publish below finds the score half done.
  const auto slow_a = world->module("a", "1", 50.0f, [](int64_t, size_t, ExpertPtr inner) {
    return std::make_shared<HookedExpert>(
        inner, [](int64_t, float*) { std::this_thread::sleep_for(5ms); });
  });
  auto engine = make(world->table(1, {slow_a, b}), options);
  const auto sink = submit(*engine, score);
  EngineRequest embed = score;
  embed.kind = EngineRequest::Kind::kEmbed;
  const auto embed_sink = submit(*engine, embed);
  while (engine->stats().steps < 5 || engine->stats().live < 2) std::this_thread::sleep_for(100us);
  ASSERT_TRUE(engine->publish(new_table, InFlight::kRestart, kPatience).ok());
  ASSERT_EQ(engine->stats().restarted, 2u);
  EXPECT_EQ(embed_sink->done().embedding, submit(*make(new_table), embed)->done().embedding);
  const DoneEvent got = sink->done();
  EXPECT_EQ(got.nats, want.nats);
  EXPECT_EQ(got.logprobs, want.logprobs);
  EXPECT_EQ(*got.logits, *want.logits);
  EXPECT_EQ(got.routing->ids, want.routing->ids);
  EXPECT_EQ(got.modules.count("a"), 0u);
  EXPECT_EQ(got.backbone_share, want.backbone_share);
}

// What differs between two biases is a number: no stream that stays on the old one is waited for.
TEST_F(EngineEpochs, BiasesChangeAsOftenAsTheyLikeUnderPinnedStreams) {
  EngineOptions options;
  options.max_live_epochs = 1;
  constexpr int kBiases = 24;
  const auto table = [&](int i) {
    return world->table(static_cast<uint64_t>(i), {a, b}, 0.1f * static_cast<float>(i));
  };
  auto engine = make(table(1), options);
  std::vector<EngineRequest> requests;
  std::vector<std::shared_ptr<Collector>> streams;
  std::atomic<bool> published{false};
  const auto until_published = [&](const TokenEvent& event) {
    if (!published) slowly(event);
  };
  for (int i = 1; i <= kBiases; ++i) {
    if (i > 1) {
      const Status status = engine->publish(table(i), InFlight::kPin, 0ms);
      ASSERT_TRUE(status.ok()) << status.to_string();
    }
    if (i % 6 != 1) continue;
    EngineRequest request = greedy(prompt(i, 5), 400);
    request.modules.only = {i == 1 ? "b" : "a"};
    requests.push_back(request);
    streams.push_back(submit(*engine, request, nullptr, until_published));
    ASSERT_TRUE(streams.back()->wait_tokens(1));
  }
  // Nobody asked the first one to stay: it uses b alone.
  std::map<uint64_t, int64_t> held;
  for (const EpochInfo& info : engine->epochs()) held[info.epoch] = info.sequences;
  EXPECT_EQ(held, (std::map<uint64_t, int64_t>{{7, 1}, {13, 1}, {19, 1}, {24, 1}}));
  // Another module is another matter.
  EXPECT_EQ(engine->publish(world->table(99, {a, c}), InFlight::kPin, 0ms).code(),
            Code::kFailedPrecondition);
  published = true;
  for (size_t i = 0; i < streams.size(); ++i) {
    SCOPED_TRACE(i);
    EXPECT_EQ(stream_of(streams[i]->done()),
              alone(table(1 + 6 * static_cast<int>(i)), requests[i]));
  }
  EXPECT_EQ(engine->stats().restarted, 0u);
}

TEST_F(EngineEpochs, PublishWaitsForAFreeEpochAndSaysForWhom) {
  EngineOptions options;
  options.max_live_epochs = 2;
  auto engine = make(world->table(1, {a}), options);
  Engine::RequestId id = 0;
  const auto old_one = submit(*engine, greedy(prompt(1, 5), 1900), &id, slowly);
  ASSERT_TRUE(old_one->wait_tokens(1));
  ASSERT_TRUE(engine->publish(world->table(2, {b}), InFlight::kPin, 0ms).ok());
  Engine::RequestId id2 = 0;
  const auto second = submit(*engine, greedy(prompt(2, 5), 1900), &id2);
  ASSERT_TRUE(second->wait_tokens(1));
  // Epochs 1 and 2 are held; a third would be one too many.
  const Status refused = engine->publish(world->table(3, {c}), InFlight::kPin, 20ms);
  EXPECT_EQ(refused.code(), Code::kFailedPrecondition);
  EXPECT_THAT(refused.message(),
              HasSubstr("epoch 3 would leave epochs of 3 sets of modules in use (limit 2, "
                        "max_live_epochs); the oldest, epoch 1, is held by 1 sequence"));
  EXPECT_THAT(refused.hint(), HasSubstr("restart"));
  EXPECT_EQ(engine->table()->epoch(), 2u);

  std::atomic<bool> through{false};
  std::thread waiter([&] {
    EXPECT_TRUE(engine->publish(world->table(4, {c}), InFlight::kPin, kPatience).ok());
    through = true;
  });
  std::this_thread::sleep_for(30ms);
  EXPECT_FALSE(through);
  // Admission goes on meanwhile, on the current table.
  Engine::RequestId id3 = 0;
  const auto meanwhile = submit(*engine, greedy(prompt(3, 5), 1900), &id3);
  ASSERT_TRUE(meanwhile->wait_tokens(1));
  EXPECT_EQ(meanwhile->tokens()[0].epoch, 2u);
  engine->cancel(id);
  waiter.join();
  EXPECT_EQ(engine->table()->epoch(), 4u);
  // restart needs no epoch.
  EXPECT_TRUE(engine->publish(world->table(5, {a}), InFlight::kRestart, 0ms).ok());
  EXPECT_EQ(engine->epochs().size(), 1u);
  const Status backwards = engine->publish(world->table(5, {b}), InFlight::kPin, 0ms);
  EXPECT_EQ(backwards.code(), Code::kFailedPrecondition);
}

TEST_F(EngineEpochs, RevocationOvertakesAWaitingPublish) {
  EngineOptions options;
  options.max_live_epochs = 1;
  auto engine = make(world->table(1, {a, b}), options);
  const auto sink = submit(*engine, greedy(prompt(1, 5), 1900), nullptr, slowly);
  ASSERT_TRUE(sink->wait_tokens(1));
  Status waited;
  std::thread waiter([&] {
    waited = engine->publish(world->table(2, {a, b2}), InFlight::kPin, kPatience);
  });
  std::this_thread::sleep_for(20ms);
  EXPECT_TRUE(engine->revoke("a", world->table(3, {b})).ok());
  waiter.join();
  EXPECT_EQ(waited.code(), Code::kFailedPrecondition);
  EXPECT_THAT(waited.message(), HasSubstr("epoch 2 cannot follow epoch 3"));
  EXPECT_FALSE(engine->revoke("b", world->table(4, {b})).ok());
}

// Invariant 7.
TEST_F(EngineEpochs, PrefixCacheNeverCrossesMasksOrCompositions) {
  const auto first = world->table(1, {a, b});
  const auto second = world->table(2, {a, b2});
  auto engine = make(first);
  const EngineRequest plain = greedy(prompt(7, 50), 30);  // 3 full blocks of 16
  EngineRequest masked = plain;
  masked.modules.exclude = {"a"};
  EngineRequest biased = plain;
  biased.modules.bias["b"] = 0.25f;
  const auto run = [&](const EngineRequest& request, int64_t cached,
                       const std::shared_ptr<const RoutingTable>& table) {
    const DoneEvent done = submit(*engine, request)->done();
    EXPECT_EQ(done.cached_tokens, cached);
    EXPECT_EQ(stream_of(done), alone(table, request));
  };
  run(plain, 0, first);
  run(masked, 0, first);
  run(biased, 0, first);
  run(plain, 48, first);
  run(masked, 48, first);
  run(biased, 48, first);
  EngineRequest exact = plain;
  exact.tokens.resize(48);
  run(exact, 32, first);  // the last token always runs
  EngineRequest forked = plain;
  forked.tokens[20] += 1;
  run(forked, 16, first);
  EngineRequest longer = plain;  // a conversation that goes on: generated blocks are cached, too
  const Stream answer = alone(first, plain);
  longer.tokens.insert(longer.tokens.end(), answer.tokens.begin(), answer.tokens.end());
  run(longer, 64, first);
  ASSERT_TRUE(engine->publish(second, InFlight::kPin, kPatience).ok());
  run(plain, 0, second);
  run(plain, 48, second);
  ASSERT_TRUE(engine->publish(world->table(3, {a, b}), InFlight::kPin, kPatience).ok());
  run(plain, 48, first);  // the composition of epoch 1 is back
  // A revocation forgets all that was cached.
  ASSERT_TRUE(engine->revoke("b", world->table(4, {a})).ok());
  ASSERT_TRUE(engine->publish(world->table(5, {a, b}), InFlight::kPin, kPatience).ok());
  run(plain, 0, first);
  EXPECT_EQ(engine->stats().cached_tokens, 48u * 3 + 32 + 16 + 64 + 48 + 48);
}

TEST_F(EngineEpochs, PrefixCacheCanBeOff) {
  EngineOptions options;
  options.prefix_cache = false;
  auto engine = make(world->table(1, {a}), options);
  const Stream first = stream_of(submit(*engine, greedy(prompt(7, 50), 10))->done());
  const DoneEvent again = submit(*engine, greedy(prompt(7, 50), 10))->done();
  EXPECT_EQ(again.cached_tokens, 0);
  EXPECT_EQ(stream_of(again), first);
}

TEST_F(EngineEpochs, EveryRequestEndsOnceInAStorm) {
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::printf("storm seed %u\n", seed);
  EngineOptions options;
  options.max_sequences = 6;
  options.max_queue = 12;
  options.max_live_epochs = 3;
  options.max_context = 256;
  options.threads = 2;
  auto engine = make(world->table(1, {a, b, c}), options);
  std::atomic<bool> stop{false};
  std::thread changer([&] {
    std::mt19937 rng(seed);
    for (uint64_t epoch = 2; !stop; ++epoch) {
      std::vector<std::shared_ptr<const Module>> modules{a};
      if (rng() % 2) modules.push_back(rng() % 2 ? b : b2);
      if (rng() % 2) modules.push_back(c);
      if (rng() % 4 == 0) {
        modules.erase(modules.begin());
        EXPECT_TRUE(engine->revoke("a", world->table(epoch, modules)).ok());
      } else {
        const Status status = engine->publish(world->table(epoch, modules),
                                              rng() % 3 ? InFlight::kPin : InFlight::kRestart,
                                              std::chrono::milliseconds(rng() % 5));
        EXPECT_TRUE(status.ok() || status.code() == Code::kFailedPrecondition)
            << status.to_string();
        // Revocations do not wait, so the bound holds from the next publish on.
        if (status.ok()) {
          EXPECT_LE(engine->epochs().size(), 3u);
        }
      }
      std::this_thread::sleep_for(std::chrono::microseconds(rng() % 2000));
    }
  });
  std::vector<std::thread> clients;
  std::atomic<int> accepted{0}, refused{0};
  Mutex mutex;
  std::vector<std::shared_ptr<Collector>> sinks;
  for (uint32_t client = 0; client < 4; ++client) {
    clients.emplace_back([&, client] {
      std::mt19937 rng(seed + 1 + client);
      const auto until = std::chrono::steady_clock::now() + 3s;
      while (std::chrono::steady_clock::now() < until) {
        EngineRequest request =
            greedy(prompt(static_cast<int32_t>(rng() % 5), 1 + rng() % 100), 1 + rng() % 100);
        if (rng() % 5 == 0) request.kind = EngineRequest::Kind::kScore;
        if (rng() % 3 == 0) request.modules.only = {"a"};
        if (rng() % 3 == 0) request.sampling.temperature = 1.0;
        if (rng() % 3 == 0)
          request.deadline =
              std::chrono::steady_clock::now() + std::chrono::microseconds(rng() % 20000);
        const bool cancel = rng() % 3 == 0;
        auto sink = std::make_shared<Collector>();
        const auto id = engine->submit(std::move(request), sink);
        if (!id.ok()) {
          EXPECT_TRUE(id.status().code() == Code::kResourceExhausted ||
                      id.status().code() == Code::kNotFound)
              << id.status().to_string();
          ++refused;
          std::this_thread::sleep_for(1ms);
          continue;
        }
        ++accepted;
        if (cancel) {
          std::this_thread::sleep_for(std::chrono::microseconds(rng() % 3000));
          engine->cancel(*id);
        }
        const MutexLock lock(mutex);
        sinks.push_back(sink);
      }
    });
  }
  for (auto& client : clients) client.join();
  stop = true;
  changer.join();
  EXPECT_TRUE(engine->drain(60s));
  const EngineStats stats = engine->stats();
  EXPECT_EQ(stats.kv_blocks_free, stats.kv_blocks_total);
  EXPECT_EQ(stats.finished + stats.cancelled + stats.failed,
            static_cast<uint64_t>(accepted.load()));
  EXPECT_EQ(stats.failed, 0u);
  EXPECT_EQ(stats.rejected, static_cast<uint64_t>(refused.load()));
  EXPECT_GT(accepted, 10);
  for (const auto& sink : sinks) {
    ASSERT_EQ(sink->terminals(), 1);
    ASSERT_EQ(sink->late_tokens(), 0);
    const DoneEvent done = sink->done();
    std::vector<int32_t> streamed;
    for (const TokenEvent& event : sink->tokens()) streamed.push_back(event.token);
    ASSERT_EQ(streamed, done.tokens);
  }
  std::printf("%d accepted, %d refused, %llu restarted, epoch %llu\n", accepted.load(),
              refused.load(), static_cast<unsigned long long>(stats.restarted),
              static_cast<unsigned long long>(engine->table()->epoch()));
}

}  // namespace
}  // namespace chimera
