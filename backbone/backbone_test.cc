// The forward pass against the golden logits, with a plain mixture of experts of the test's own in
// double precision, so that nothing of the router takes part; and the exactness promises: chunks,
// decode steps, batch mates, threads and instruction sets change no bit.
#include "backbone/backbone.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <numeric>

#include "backbone/slow_moe_testing.h"
#include "base/io/env.h"
#include "base/json/testing.h"

namespace chimera {
namespace {

namespace fs = std::filesystem;

const fs::path kOpen = fs::path(CHIMERA_SOURCE_DIR) / "../shared/golden/open";
// Options that the shared set does not show, with outputs of its reference.py; committed.
const fs::path kOwn = fs::path(CHIMERA_SOURCE_DIR) / "tests/golden/families";

using testing::SlowMoe;

struct Prompt {
  std::vector<int32_t> ids;
  std::vector<float> logits;  // [ids, vocab]
};

/// A golden model ready to run.
struct Model {
  std::shared_ptr<const Backbone> backbone;
  std::unique_ptr<SlowMoe> moe;
  std::vector<Prompt> prompts;
};

std::vector<Prompt> read_prompts(const fs::path& file) {
  const Result<SafetensorsFile> golden = SafetensorsFile::open(file.string(), Residency::kCopied);
  EXPECT_TRUE(golden.ok()) << golden.status().to_string();
  std::vector<Prompt> prompts;
  for (int i = 0;; ++i) {
    const std::string prefix = "prompt." + std::to_string(i);
    const TensorView* ids = golden->find(prefix + ".input_ids");
    const TensorView* logits = golden->find(prefix + ".logits");
    if (ids == nullptr || logits == nullptr) return prompts;
    Prompt prompt;
    for (int64_t t = 0; t < ids->elements(); ++t) {
      int64_t id = 0;
      std::memcpy(&id, ids->bytes.data() + t * 8, 8);
      prompt.ids.push_back(static_cast<int32_t>(id));
    }
    prompt.logits.resize(static_cast<size_t>(logits->elements()));
    std::memcpy(prompt.logits.data(), logits->bytes.data(), logits->bytes.size());
    prompts.push_back(std::move(prompt));
  }
}

Model load_model(const std::string& name, Precision precision = Precision::kF32) {
  const fs::path dir = fs::exists(kOwn / name) ? kOwn / name : kOpen / "models" / name;
  const Result<Checkpoint> checkpoint = Checkpoint::open(dir.string(), Residency::kCopied);
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status().to_string();
  Model model;
  auto backbone = Backbone::load(*checkpoint, precision);
  EXPECT_TRUE(backbone.ok()) << backbone.status().to_string();
  model.backbone = *backbone;
  model.moe = SlowMoe::load(*checkpoint, model.backbone->config());
  model.prompts = read_prompts(dir / "golden.safetensors");
  return model;
}

/// Runs segments on a cache and pool of its own.
class Runner {
 public:
  explicit Runner(const Model& model, int threads = 1, int64_t block_tokens = 16,
                  const Kernels& kernels = best_kernels(), KvFormat format = KvFormat::kF32)
      : model_(model), kernels_(kernels), pool_(threads) {
    auto cache = KvCache::create(model.backbone->config(), {block_tokens, 400, true, 0, format});
    EXPECT_TRUE(cache.ok()) << cache.status().to_string();
    cache_ = std::move(*cache);
  }

  KvCache* cache() { return cache_.get(); }
  /// Of a cache with two bytes a number: that the sequences of a batch are widened one by one.
  void widen_one_by_one() { workspace_.most_widened = 1; }

  std::vector<float> run(std::vector<BatchSegment> segments) {
    for (BatchSegment& s : segments) {
      const Status room = s.kv->reserve(s.position + static_cast<int64_t>(s.tokens.size()));
      EXPECT_TRUE(room.ok()) << room.to_string();
    }
    const Status status =
        model_.backbone->forward(segments, *model_.moe, kernels_, pool_, workspace_);
    EXPECT_TRUE(status.ok()) << status.to_string();
    return {workspace_.logits.begin(), workspace_.logits.end()};
  }

  /// Logits of all positions in one pass.
  std::vector<float> whole(const std::vector<int32_t>& ids) {
    KvSequence kv(cache());
    return run({{ids, 0, &kv, BatchSegment::Logits::kAll}});
  }

  /// The same, `chunk` tokens at a time.
  std::vector<float> chunked(const std::vector<int32_t>& ids, size_t chunk) {
    KvSequence kv(cache());
    std::vector<float> all;
    for (size_t at = 0; at < ids.size(); at += chunk) {
      const std::span<const int32_t> part =
          std::span(ids).subspan(at, std::min(chunk, ids.size() - at));
      const std::vector<float> logits =
          run({{part, static_cast<int64_t>(at), &kv, BatchSegment::Logits::kAll}});
      all.insert(all.end(), logits.begin(), logits.end());
    }
    return all;
  }

 private:
  const Model& model_;
  const Kernels& kernels_;
  ThreadPool pool_;
  std::unique_ptr<KvCache> cache_;
  Workspace workspace_;
};

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

double worst(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double most = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    most = std::max(most, std::fabs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  return most;
}

/// That of the shared golden set, whose outputs went through another release's float arithmetic.
double tolerance() {
  if (!fs::exists(kOpen)) return 1e-3;
  const Result<std::string> text =
      read_file(Env::system(), (kOpen / "manifest.json").string(), 16 << 20);
  EXPECT_TRUE(text.ok()) << text.status().to_string();
  return *json_of(*text)["tolerances"]["logits_abs_f32"].number();
}

class GoldenModels : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (!fs::exists(kOwn / GetParam()) && !fs::exists(kOpen)) GTEST_SKIP() << kOpen << " is absent";
  }
};

TEST_P(GoldenModels, LogitsMatchTheReference) {
  const Model model = load_model(GetParam());
  const double bound = tolerance();
  ASSERT_GE(model.prompts.size(), 4u);
  Runner runner(model, 2);
  for (const Prompt& p : model.prompts) {
    const double error = worst(runner.whole(p.ids), p.logits);
    EXPECT_LT(error, bound) << "prompt of " << p.ids.size();
    RecordProperty("worst_" + std::to_string(p.ids.size()), std::to_string(error));
  }
}

TEST_P(GoldenModels, Bf16WeightsStayWithinTwoPercent) {
  const Model model = load_model(GetParam(), Precision::kBF16);
  Runner runner(model);
  for (const Prompt& p : model.prompts) {
    if (p.ids.size() > 5) break;  // later prompts meet router choices nearer than bf16 resolves
    double most = 0;
    for (float v : p.logits) most = std::max(most, std::fabs(static_cast<double>(v)));
    EXPECT_LT(worst(runner.whole(p.ids), p.logits), 2e-2 * most) << p.ids.size();
  }
}

TEST_P(GoldenModels, ChunksDecodeStepsAndBlockSizesChangeNoBit) {
  const Model model = load_model(GetParam());
  const std::vector<int32_t>& ids = model.prompts.back().ids;
  ASSERT_GE(ids.size(), 40u);
  Runner runner(model);
  const std::vector<float> whole = runner.whole(ids);
  for (size_t chunk : {1u, 7u, 16u, 33u})
    EXPECT_TRUE(same_bits(runner.chunked(ids, chunk), whole)) << "chunks of " << chunk;
  Runner other_blocks(model, 1, 5);
  EXPECT_TRUE(same_bits(other_blocks.whole(ids), whole));
}

TEST_P(GoldenModels, ThreadsAndInstructionSetsChangeNoBit) {
  const Model model = load_model(GetParam());
  const std::vector<int32_t>& ids = model.prompts.back().ids;
  const std::vector<float> reference = Runner(model, 1, 16, kernels_for(Isa::kScalar)).whole(ids);
  for (Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512}) {
    if (!isa_supported(isa)) continue;
    for (int threads : {1, 3})
      EXPECT_TRUE(same_bits(Runner(model, threads, 16, kernels_for(isa)).whole(ids), reference))
          << kernels_for(isa).name << " on " << threads;
  }
}

TEST_P(GoldenModels, BatchMatesChangeNoBit) {
  const Model model = load_model(GetParam());
  Runner runner(model, 2);
  const auto vocab = static_cast<size_t>(model.backbone->config().vocab_size);

  // All prompts in one batch, the last one in the middle of its decoding.
  std::vector<std::unique_ptr<KvSequence>> kvs;
  for (size_t i = 0; i < model.prompts.size(); ++i)
    kvs.push_back(std::make_unique<KvSequence>(runner.cache()));
  const std::vector<int32_t>& last = model.prompts.back().ids;
  const std::span<const int32_t> all_but_one = std::span(last).first(last.size() - 1);
  runner.run({{all_but_one, 0, kvs.back().get(), BatchSegment::Logits::kNone}});
  std::vector<BatchSegment> batch;
  for (size_t i = 0; i + 1 < model.prompts.size(); ++i)
    batch.push_back({model.prompts[i].ids, 0, kvs[i].get(), BatchSegment::Logits::kAll});
  batch.push_back({std::span(last).last(1), static_cast<int64_t>(last.size()) - 1, kvs.back().get(),
                   BatchSegment::Logits::kLast});
  const std::vector<float> together = runner.run(batch);

  size_t at = 0;
  for (size_t i = 0; i < model.prompts.size(); ++i) {
    std::vector<float> alone = runner.whole(model.prompts[i].ids);
    if (i + 1 == model.prompts.size())
      alone.erase(alone.begin(), alone.end() - static_cast<int64_t>(vocab));
    ASSERT_LE(at + alone.size(), together.size());
    const auto from = together.begin() + static_cast<int64_t>(at);
    EXPECT_TRUE(same_bits({from, from + static_cast<int64_t>(alone.size())}, alone))
        << "prompt " << i;
    at += alone.size();
  }
  EXPECT_EQ(at, together.size());
}

/// All prompts in one batch, as if each were alone.
void expect_batch_of_prompts(const Model& model, Runner& runner,
                             const std::vector<std::vector<float>>& alone) {
  std::vector<std::unique_ptr<KvSequence>> kvs;
  std::vector<BatchSegment> batch;
  for (const Prompt& prompt : model.prompts) {
    kvs.push_back(std::make_unique<KvSequence>(runner.cache()));
    batch.push_back({prompt.ids, 0, kvs.back().get(), BatchSegment::Logits::kAll});
  }
  std::vector<float> expected;
  for (const auto& logits : alone) expected.insert(expected.end(), logits.begin(), logits.end());
  EXPECT_TRUE(same_bits(runner.run(batch), expected));
}

class TwoByteCaches : public GoldenModels {};

TEST_P(TwoByteCaches, KeepThePromisesOfTheirFormat) {
  const Model model = load_model(GetParam());
  const std::vector<int32_t>& ids = model.prompts.back().ids;
  const std::vector<float> exact = Runner(model).whole(ids);
  // Numbers of 11 bits and of 8, and both keys and values are: twice what weights of so many do.
  for (const auto& [format, bound] :
       {std::pair(KvFormat::kF16, 6e-3), std::pair(KvFormat::kBF16, 4e-2)}) {
    const std::string name = kKvFormatNames.text(format);
    Runner scalar(model, 1, 16, kernels_for(Isa::kScalar), format);
    std::vector<std::vector<float>> alone;
    for (const Prompt& p : model.prompts) {
      alone.push_back(scalar.whole(p.ids));
      double most = 0;
      for (float v : p.logits) most = std::max(most, std::fabs(static_cast<double>(v)));
      // Later prompts meet router choices nearer than the rounding resolves.
      if (p.ids.size() <= 5) {
        EXPECT_LT(worst(alone.back(), p.logits), bound * most) << name;
      }
    }
    Runner runner(model, 3, 5, best_kernels(), format);
    EXPECT_TRUE(same_bits(runner.chunked(ids, 7), alone.back())) << name;
    expect_batch_of_prompts(model, runner, alone);
    runner.widen_one_by_one();
    expect_batch_of_prompts(model, runner, alone);
    EXPECT_GT(worst(alone.back(), exact), 0.0) << name << ": nothing was rounded";
  }
}

INSTANTIATE_TEST_SUITE_P(Open, TwoByteCaches,
                         ::testing::Values("olmoe_f32", "deepseek_v3_f32", "llama4_text_f32"),
                         [](const auto& name) { return name.param; });
INSTANTIATE_TEST_SUITE_P(Own, TwoByteCaches, ::testing::Values("gpt_oss", "qwen3_sliding"),
                         [](const auto& name) { return name.param; });
INSTANTIATE_TEST_SUITE_P(Open, GoldenModels,
                         ::testing::Values("deepseek_v3_f32", "deepseek_v3_bf16", "flex_olmo_f32",
                                           "flex_olmo_bf16", "llama4_composite_bf16",
                                           "llama4_text_f32", "llama4_text_bf16", "llama_f32",
                                           "llama_bf16", "mixtral_f32", "mixtral_bf16", "olmoe_f32",
                                           "olmoe_bf16", "qwen3_moe_f32", "qwen3_moe_bf16",
                                           "qwen3_moe_v5_fused_bf16", "qwen3_tied_bf16"),
                         [](const auto& name) { return name.param; });
INSTANTIATE_TEST_SUITE_P(Own, GoldenModels,
                         ::testing::Values("deepseek_v2_grouped", "deepseek_v2_lite",
                                           "deepseek_v3_direct", "deepseek_v3_grouped", "gpt_oss",
                                           "gpt_oss_mxfp4", "llama4_two_experts", "llama4_scout",
                                           "llama_biases", "mixtral_yarn", "olmoe_clip",
                                           "qwen2_moe", "qwen3_moe_sparse", "qwen3_sliding"),
                         [](const auto& name) { return name.param; });

class OneModel : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!fs::exists(kOpen)) GTEST_SKIP() << kOpen << " is absent";
    model_ = load_model("mixtral_bf16");
  }
  Model model_;
};

TEST_F(OneModel, BadTokensAndPositionsAreRefused) {
  Runner runner(model_);
  KvSequence kv(runner.cache());
  ASSERT_TRUE(kv.reserve(16).ok());
  ThreadPool pool(1);
  Workspace workspace;
  const auto code = [&](std::vector<int32_t> ids, int64_t position, KvSequence* sequence) {
    std::vector<BatchSegment> batch = {{ids, position, sequence, BatchSegment::Logits::kLast}};
    return model_.backbone->forward(batch, *model_.moe, best_kernels(), pool, workspace).code();
  };
  EXPECT_EQ(code({5}, 15, &kv), Code::kOk);
  EXPECT_EQ(code({320}, 0, &kv), Code::kInvalidArgument);
  EXPECT_EQ(code({-1}, 0, &kv), Code::kInvalidArgument);
  EXPECT_EQ(code({}, 0, &kv), Code::kInvalidArgument);
  EXPECT_EQ(code({5}, 16, &kv), Code::kInvalidArgument);
  EXPECT_EQ(code({5, 6}, 15, &kv), Code::kInvalidArgument);
  EXPECT_EQ(code({5}, -1, &kv), Code::kInvalidArgument);
  EXPECT_EQ(code({5}, INT64_MAX, &kv), Code::kInvalidArgument);
  EXPECT_EQ(code({5}, 0, nullptr), Code::kInvalidArgument);
}

TEST_F(OneModel, AFailingFeedForwardEndsThePass) {
  class Failing final : public FeedForward {
    Status forward(int64_t, const float*, int64_t, float*) override {
      return Status(Code::kUnavailable, "expert gone");
    }
  };
  Failing failing;
  Runner runner(model_);
  KvSequence kv(runner.cache());
  ASSERT_TRUE(kv.reserve(1).ok());
  ThreadPool pool(1);
  Workspace workspace;
  const std::vector<int32_t> ids = {1};
  std::vector<BatchSegment> batch = {{ids, 0, &kv, BatchSegment::Logits::kLast}};
  EXPECT_EQ(model_.backbone->forward(batch, failing, best_kernels(), pool, workspace).code(),
            Code::kUnavailable);
}

TEST_F(OneModel, ResidentBytesCountTheWeights) {
  // Embedding and head 320 x 64, three layers of q, o 64 x 64 and k, v 32 x 64, in BF16; norms f32.
  const uint64_t matrices = 2 * (2 * 320 * 64 + 3 * (2 * 64 * 64 + 2 * 32 * 64));
  const uint64_t norms = 4 * 64 * (1 + 3 * 2);
  EXPECT_EQ(model_.backbone->resident_bytes(), matrices + norms);
}

}  // namespace
}  // namespace chimera
