// The engine against the reference outputs: continuations, scores and embeddings.
#include <cmath>
#include <cstring>

#include <gmock/gmock.h>

#include "daemon/engine/engine.h"
#include "daemon/engine/testing.h"

namespace chimera {
namespace {

using namespace testing_support;

template <class T>
std::vector<T> values(const SafetensorsFile& file, const std::string& name) {
  const TensorView* t = file.find(name);
  if (!t) throw std::runtime_error("no tensor " + name);
  std::vector<T> out(static_cast<size_t>(t->elements()));
  std::memcpy(out.data(), t->bytes.data(), t->bytes.size());
  return out;
}

/// All experts of the checkpoint in their order, those from 3 on as modules of their own.
std::shared_ptr<const RoutingTable> whole_table(const World& world) {
  std::vector<std::shared_ptr<const Module>> modules;
  for (int64_t e = 3; e < world.config.num_experts; ++e)
    modules.push_back(world.module(std::string(1, static_cast<char>('a' + e - 3))));
  return world.table(1, modules);
}

class EngineGolden : public testing::TestWithParam<std::string> {};

TEST_P(EngineGolden, GreedyContinuationsAndScoresMatchTheReference) {
  CHIMERA_NEEDS_GOLDEN();
  const World world(GetParam(), 3);
  EngineOptions options;
  options.prefill_chunk = 7;  // so that prompts of 13, 33 and 70 tokens run in several chunks
  options.threads = 2;
  auto engine = must(Engine::create(world.backbone, nullptr, whole_table(world), options));
  const auto golden = must(SafetensorsFile::open(
      kGolden + "/models/" + GetParam() + "/golden.safetensors", Residency::kCopied));

  std::vector<std::shared_ptr<Collector>> sinks, scores;  // all at once: batched together
  std::vector<std::vector<int32_t>> prompts;
  for (int i = 0; i < 6; ++i) {
    const auto ids = values<int64_t>(golden, fmt::format("prompt.{}.input_ids", i));
    prompts.emplace_back(ids.begin(), ids.end());
    sinks.push_back(submit(*engine, greedy(prompts.back(), 16)));
    EngineRequest score = greedy(prompts.back(), 1);
    score.kind = EngineRequest::Kind::kScore;
    score.text_bytes = 100;
    score.want_logits = score.want_routing = true;
    scores.push_back(submit(*engine, score));
  }
  for (int i = 0; i < 6; ++i) {
    SCOPED_TRACE(i);
    const auto want = values<int64_t>(golden, fmt::format("prompt.{}.greedy_ids", i));
    const DoneEvent done = sinks[static_cast<size_t>(i)]->done();
    EXPECT_EQ(done.tokens, std::vector<int32_t>(want.begin(), want.end()));
    EXPECT_EQ(done.finish_reason, FinishReason::kLength);

    const DoneEvent score = scores[static_cast<size_t>(i)]->done();
    const auto& tokens = prompts[static_cast<size_t>(i)];
    const auto logits = values<float>(golden, fmt::format("prompt.{}.logits", i));
    ASSERT_EQ(score.finish_reason, FinishReason::kScored);
    ASSERT_EQ(score.logits->size(), logits.size());
    for (size_t j = 0; j < logits.size(); ++j) ASSERT_NEAR((*score.logits)[j], logits[j], 1e-3);
    double nats = 0;
    const auto vocab = static_cast<size_t>(world.config.vocab_size);
    for (size_t t = 0; t + 1 < tokens.size(); ++t) {
      double sum = 0;
      for (size_t v = 0; v < vocab; ++v) sum += std::exp(double{logits[t * vocab + v]});
      const double lp =
          double{logits[t * vocab + static_cast<size_t>(tokens[t + 1])]} - std::log(sum);
      EXPECT_NEAR(score.logprobs[t], lp, 2e-3);
      nats -= lp;
    }
    EXPECT_EQ(score.count, static_cast<int64_t>(tokens.size()) - 1);
    EXPECT_NEAR(score.nats, nats, 1e-3 * static_cast<double>(tokens.size()));
    EXPECT_NEAR(score.bits_per_byte.value(), score.nats / std::log(2.0) / 100, 1e-12);
    // Routing, all rows and layers; the appended experts follow the base in their old order.
    const RoutingTrace& trace = *score.routing;
    ASSERT_EQ(trace.rows, static_cast<int64_t>(tokens.size()));
    for (int64_t layer = 0; layer < world.config.num_layers; ++layer) {
      const auto ids = values<int64_t>(golden, fmt::format("prompt.{}.router.{}.ids", i, layer));
      const auto weights =
          values<float>(golden, fmt::format("prompt.{}.router.{}.weights", i, layer));
      const auto at = static_cast<size_t>(layer * trace.rows * trace.k);
      for (size_t j = 0; j < ids.size(); ++j) {
        ASSERT_EQ(trace.ids[at + j], ids[j]) << "layer " << layer;
        ASSERT_NEAR(trace.weights[at + j], weights[j], 1e-4);
      }
    }
    double total = score.backbone_share;
    for (const auto& [name, module] : score.modules) total += module.share;
    EXPECT_NEAR(total, 1.0, 1e-6);
  }
}

/// Head times vector, [vocab]: the head is linear, so of a mean of hidden states it gives the mean
/// of their logits.
std::vector<double> logits_of(const std::vector<float>& head, const std::vector<float>& state) {
  std::vector<double> out(head.size() / state.size(), 0.0);
  for (size_t v = 0; v < out.size(); ++v) {
    for (size_t i = 0; i < state.size(); ++i) {
      out[v] += double{head[v * state.size() + i]} * double{state[i]};
    }
  }
  return out;
}

TEST_P(EngineGolden, EmbeddingsAreTheStatesThatTheLogitsOfTheReferenceComeFrom) {
  CHIMERA_NEEDS_GOLDEN();
  const World world(GetParam(), 3);
  EngineOptions options;
  options.prefill_chunk = 7;
  options.threads = 2;
  auto batched = must(Engine::create(world.backbone, nullptr, whole_table(world), options));
  auto alone = must(Engine::create(world.backbone, nullptr, whole_table(world), {}));
  const std::string files = kGolden + "/models/" + GetParam();
  const auto golden =
      must(SafetensorsFile::open(files + "/golden.safetensors", Residency::kCopied));
  const auto head =
      values<float>(must(SafetensorsFile::open(files + "/model.safetensors", Residency::kCopied)),
                    "lm_head.weight");
  const auto width = static_cast<size_t>(world.config.hidden_size);
  const auto vocab = static_cast<size_t>(world.config.vocab_size);

  std::vector<EngineRequest> requests;
  std::vector<std::shared_ptr<Collector>> sinks;  // all at once, beside generations
  for (int i = 0; i < 6; ++i) {
    const auto ids = values<int64_t>(golden, fmt::format("prompt.{}.input_ids", i));
    EngineRequest request = greedy({ids.begin(), ids.end()}, 16);
    sinks.push_back(submit(*batched, request));
    request.kind = EngineRequest::Kind::kEmbed;
    for (const Pooling pooling : {Pooling::kMean, Pooling::kLast}) {
      request.pooling = pooling;
      request.normalize = false;
      requests.push_back(request);
      sinks.push_back(submit(*batched, request));
    }
  }
  for (int i = 0; i < 6; ++i) {
    SCOPED_TRACE(i);
    const auto logits = values<float>(golden, fmt::format("prompt.{}.logits", i));
    const size_t n = logits.size() / vocab;
    EXPECT_EQ(sinks[static_cast<size_t>(i) * 3]->done().finish_reason, FinishReason::kLength);
    for (size_t p = 0; p < 2; ++p) {
      EngineRequest& request = requests[static_cast<size_t>(i) * 2 + p];
      const DoneEvent done = sinks[static_cast<size_t>(i) * 3 + 1 + p]->done();
      ASSERT_EQ(done.finish_reason, FinishReason::kEmbedded);
      ASSERT_EQ(done.embedding.size(), width);
      EXPECT_EQ(done.completion_tokens, 0);
      EXPECT_TRUE(done.text.empty() && done.tokens.empty());
      const std::vector<double> found = logits_of(head, done.embedding);
      for (size_t v = 0; v < vocab; ++v) {
        double want = logits[(n - 1) * vocab + v];
        if (p == 0) {
          want = 0.0;
          for (size_t t = 0; t < n; ++t) want += double{logits[t * vocab + v]};
          want /= static_cast<double>(n);
        }
        ASSERT_NEAR(found[v], want, 1e-3) << "pooling " << p;
      }
      // Bit for bit, whoever shares the batch and however the text was cut.
      EXPECT_EQ(submit(*alone, request)->done().embedding, done.embedding);
      request.normalize = true;
      const std::vector<float> unit = submit(*alone, request)->done().embedding;
      double squares = 0.0, raw_squares = 0.0;
      for (size_t k = 0; k < width; ++k) {
        squares += double{unit[k]} * double{unit[k]};
        raw_squares += double{done.embedding[k]} * double{done.embedding[k]};
      }
      EXPECT_NEAR(squares, 1.0, 1e-6);
      for (size_t k = 0; k < width; ++k) {
        EXPECT_NEAR(unit[k] * std::sqrt(raw_squares), done.embedding[k],
                    1e-6 * std::sqrt(raw_squares));
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, EngineGolden,
                         testing::Values("flex_olmo_f32", "olmoe_f32", "mixtral_f32"),
                         [](const auto& family) { return family.param; });

}  // namespace
}  // namespace chimera
