#include "daemon/server/answers/events.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <random>

#include "base/json/reader.h"
#include "base/json/testing.h"
#include "base/statement/canonical.h"
#include "daemon/server/answers/reports.h"

namespace chimera {
namespace {

DoneEvent done_event() {
  DoneEvent event;
  event.finish_reason = FinishReason::kLength;
  event.text = "ab";
  event.tokens = {1, 2};
  event.prompt_tokens = 3;
  event.completion_tokens = 2;
  event.cached_tokens = 1;
  event.queue_ms = 0.5;
  event.epoch = 7;
  event.composition = "sha256:c";
  event.modules["legal"] = {"1.2.0", "sha256:d", 0.25, 2};
  event.backbone_share = 0.75;
  event.backbone_rows = 6;
  return event;
}

TEST(ServerEvents, TokenHasTheFieldsOfTheContract) {
  const Answer answer = encode_token("r", {5, " é", -0.5f, 7});
  EXPECT_FALSE(answer.final);
  EXPECT_EQ(json_of(answer.body), (Json{{"id", "r"},
                                        {"event", "token"},
                                        {"text", " é"},
                                        {"token", 5},
                                        {"logprob", -0.5},
                                        {"epoch", 7}}));
  const Json least = json_of(encode_token("r", {5, "", std::nullopt, 7}).body);
  EXPECT_FALSE(least.contains("logprob") || least.contains("shares"));
  TokenEvent shared{5, "", std::nullopt, 7};
  shared.shares = {{"backbone", 0.75}, {"legal", 0.25}};
  EXPECT_EQ(json_of(encode_token("r", shared).body)["shares"],
            (Json{{"backbone", 0.75}, {"legal", 0.25}}));
}

TEST(ServerEvents, DoneHasTheFieldsOfTheContract) {
  const Json streamed = json_of(encode_done("r", done_event(), {.stream = true, .seed = 9}).body);
  EXPECT_EQ(streamed, json_of(R"({"id":"r","event":"done","finish_reason":"length","seed":9,
      "usage":{"prompt_tokens":3,"completion_tokens":2,"cached_tokens":1},
      "timing":{"queue_ms":0.5,"prefill_ms":0.0,"decode_ms":0.0},
      "provenance":{"epoch":7,"composition":"sha256:c","backbone":{"share":0.75,"rows":6},
        "modules":{"legal":{"version":"1.2.0","digest":"sha256:d","share":0.25,"rows":2}}}})"));
  const Json whole = json_of(encode_done("r", done_event(), {.stream = false}).body);
  EXPECT_EQ(whole["text"], "ab");
  EXPECT_EQ(whole["tokens"], Json::array({1, 2}));
}

TEST(ServerEvents, EpochsAreToldWhenThereWasMoreThanOne) {
  DoneEvent event = done_event();
  event.epochs = {{7, "sha256:c", 0}};
  const auto provenance = [&] {
    return json_of(encode_done("r", event, {.stream = true}).body)["provenance"];
  };
  EXPECT_FALSE(provenance().contains("epochs"));
  event.epochs.insert(event.epochs.begin(), {6, "sha256:b", 0});
  event.epochs.back().from = 1;
  EXPECT_EQ(provenance()["epochs"], json_of(R"([{"epoch":6,"composition":"sha256:b","from":0},
                        {"epoch":7,"composition":"sha256:c","from":1}])"));
}

TEST(ServerEvents, AReceiptIsSignedAndSaysWhatTheAnswerSays) {
  std::array<uint8_t, 32> secret{};
  secret.fill(3);
  const StatementSigner signer = StatementSigner::from_secret(secret);
  const Receipt receipt{&signer, "r", "generate", "alice", "sha256:q"};
  DoneEvent event = done_event();
  event.epochs = {{7, "sha256:c", 0}};
  const Json done = json_of(encode_done("r", event, {.stream = true, .receipt = &receipt}).body);
  const auto stated = verify_statement(canonical_json(done["receipt"]), "receipt/1",
                                       signer.public_key(), "receipt");
  ASSERT_TRUE(stated.ok()) << stated.status().to_string();
  EXPECT_EQ((*stated)["client"], "alice");
  EXPECT_EQ((*stated)["request"], "sha256:q");
  EXPECT_EQ((*stated)["usage"], done["usage"]);
  EXPECT_EQ((*stated)["tokens"], digest_text("[1,2]"));
  EXPECT_EQ((*stated)["provenance"]["modules"], done["provenance"]["modules"]);
  EXPECT_EQ((*stated)["provenance"]["epochs"].size(), 1u);
}

TEST(ServerEvents, LogprobsComeWithAndWithoutStreaming) {
  DoneEvent event = done_event();
  event.logprobs = {-0.25f, -1.5f};  // asked for
  const Json whole = json_of(encode_done("r", event, {.stream = false}).body);
  EXPECT_EQ(whole["logprobs"], Json::array({-0.25, -1.5}));
  EXPECT_EQ(whole["tokens"].size(), whole["logprobs"].size());
  // Streamed, each came with its token.
  EXPECT_FALSE(json_of(encode_done("r", event, {.stream = true}).body).contains("logprobs"));
  event.logprobs.clear();
  EXPECT_FALSE(json_of(encode_done("r", event, {.stream = false}).body).contains("logprobs"));
}

TEST(ServerEvents, AlternativesComeWithAndWithoutStreaming) {
  TokenEvent event{5, "é", -0.5f, 7, {{5, -0.5f}, {9, -INFINITY}}};
  const Json expected = json_of(R"([{"token":5,"logprob":-0.5},{"token":9,"logprob":null}])");
  EXPECT_EQ(json_of(encode_token("r", event).body)["top_logprobs"], expected);
  DoneEvent done = done_event();
  done.top_logprobs = {event.top, event.top};
  const Json whole = json_of(encode_done("r", done, {.stream = false}).body);
  EXPECT_EQ(whole["top_logprobs"], Json::array({expected, expected}));
  EXPECT_FALSE(json_of(encode_done("r", done, {.stream = true}).body).contains("top_logprobs"));
}

TEST(ServerEvents, AModuleWhoseLibraryIsOutOfServiceIsNotActive) {
  ModuleStatus module;
  module.state = ModuleState::kActive;
  EXPECT_EQ(to_json(module)["state"], "active");
  module.library.emplace(ModuleStatus::Library{});
  EXPECT_EQ(to_json(module)["state"], "active");
  for (const LibraryState state :
       {LibraryState::kRestarting, LibraryState::kQuarantined, LibraryState::kPoisoned}) {
    module.state = ModuleState::kActive;
    module.library->status.state = state;
    EXPECT_EQ(to_json(module)["state"], kLibraryStateNames.name(state));
    module.state = ModuleState::kDisabled;
    EXPECT_EQ(to_json(module)["state"], "disabled");
  }
}

TEST(ServerEvents, ScoreOfTokensHasNullBitsPerByte) {
  DoneEvent event = done_event();
  event.nats = 2.5;
  event.count = 2;
  event.logprobs = {-1.0f, -1.5f};
  Json body = json_of(encode_done("r", event, {.kind = EngineRequest::Kind::kScore}).body);
  EXPECT_TRUE(body["bits_per_byte"].is_null());
  EXPECT_EQ(body["logprobs"], Json::array({-1.0, -1.5}));
  EXPECT_EQ(body["count"], 2);
  EXPECT_FALSE(body.contains("tokens"));
  event.bits_per_byte = 1.5;
  body = json_of(encode_done("r", event, {.kind = EngineRequest::Kind::kScore}).body);
  EXPECT_EQ(body["bits_per_byte"], 1.5);
}

TEST(ServerEvents, NumbersThatJsonCannotHoldBecomeNull) {
  DoneEvent event = done_event();
  event.logprobs = {-INFINITY, NAN, -1.0f};
  const Json body = json_of(encode_done("r", event, {.kind = EngineRequest::Kind::kScore}).body);
  EXPECT_EQ(body["logprobs"], Json::array({nullptr, nullptr, -1.0}));
}

TEST(ServerEvents, EmbeddingsReadBackAsTheSameFloats) {
  DoneEvent event = done_event();
  event.finish_reason = FinishReason::kEmbedded;
  event.embedding = {0.1f, -1.0f / 3.0f, 1e-30f, 0.0f};
  Json body = json_of(encode_done("r", event, {.kind = EngineRequest::Kind::kEmbed}).body);
  EXPECT_EQ(body["finish_reason"], "embedded");
  ASSERT_EQ(body["embedding"].size(), event.embedding.size());
  for (size_t i = 0; i < event.embedding.size(); ++i) {
    EXPECT_EQ(static_cast<float>(*body["embedding"].at(i).number()), event.embedding[i]);
  }
  event.finish_reason = FinishReason::kCancelled;
  event.embedding.clear();
  body = json_of(encode_done("r", event, {.kind = EngineRequest::Kind::kEmbed}).body);
  EXPECT_EQ(body["embedding"], Json::array());
  EXPECT_FALSE(body.contains("tokens"));
}

TEST(ServerEvents, RoutingReadsBackAsTheSameFloats) {
  constexpr unsigned kSeed = 20260;
  std::mt19937 random(kSeed);
  RoutingTrace trace;
  trace.k = 2;
  trace.rows = 3;
  for (int i = 0; i < 2 * 3 * 2; ++i) {
    trace.ids.push_back(i % 5 == 4 ? -1 : i);
    trace.weights.push_back(
        std::ldexp(static_cast<float>(random() % 16777216u), -static_cast<int>(random() % 60u)));
  }
  const Json body = json_of(encode_routing(trace));
  EXPECT_EQ(body["k"], 2);
  ASSERT_EQ(body["layers"].size(), 2u);
  size_t at = 0;
  for (const Json& layer : body["layers"]) {
    ASSERT_EQ(layer["ids"].size(), 3u);
    for (size_t row = 0; row < 3; ++row) {
      for (size_t k = 0; k < 2; ++k, ++at) {
        EXPECT_EQ(layer["ids"][row][k], trace.ids[at]);
        EXPECT_EQ(static_cast<float>(layer["weights"][row][k].number().value()), trace.weights[at])
            << "seed " << kSeed;
      }
    }
  }
}

TEST(ServerEvents, TextThatIsNoUtf8StillMakesJson) {
  EXPECT_EQ(json_of(encode_token("r", {5, "\xff", std::nullopt, 7}).body)["text"], "\uFFFD");
  EXPECT_TRUE(parse_json(encode_status("r", Status(Code::kInternal, "\xff\x01", "h")).body).ok());
}

TEST(ServerEvents, SharesOfALayerSumToOne) {
  RouterStats::Layer layer;
  layer.expert_tokens["backbone"] = {3, 4};
  layer.mass = {{"backbone", 3.0}, {"legal", 1.0}};
  layer.entropy_sum = 8.0;
  layer.tokens = 4;
  const Json body = to_json(layer, 2);
  EXPECT_EQ(body["layer"], 2);
  EXPECT_EQ(body["entropy"], 2.0);
  EXPECT_EQ(body["modules"]["backbone"], (Json{{"share", 0.75}, {"experts", Json::array({3, 4})}}));
  EXPECT_EQ(body["modules"]["legal"], (Json{{"share", 0.25}, {"experts", Json::array()}}));
}

}  // namespace
}  // namespace chimera
