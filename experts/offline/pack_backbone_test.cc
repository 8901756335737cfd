// Checkpoints packed beforehand: what is loaded of them is what packing at load makes, to the bit,
// they go by the fingerprint of their source, and nothing else does.
#include "experts/offline/pack_backbone.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "backbone/backbone.h"
#include "backbone/checkpoint/checkpoint.h"
#include "backbone/checkpoint/fingerprint.h"
#include "base/threads/thread_pool.h"
#include "experts/kinds/testing.h"
#include "experts/kinds/weights.h"
#include "experts/offline/convert.h"
#include "experts/offline/cut.h"
#include "experts/offline/cut_output.h"
#include "experts/offline/slot_sets.h"

namespace chimera {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

std::string golden(const std::string& name) {
  std::string own = CHIMERA_SOURCE_DIR "/tests/golden/families/" + name;
  if (fs::exists(own)) return own;
  return CHIMERA_SOURCE_DIR "/../shared/golden/open/models/" + name;
}

/// A checkpoint as a daemon loads it. The first expert stands for the layer's feed-forward.
struct Loaded {
  std::optional<Checkpoint> checkpoint;
  std::shared_ptr<const Backbone> backbone;
  std::shared_ptr<const Module> base;

  static Loaded of(const std::string& dir, const PrecisionPlan& plan) {
    Loaded out;
    auto checkpoint = Checkpoint::open(dir, Residency::kMapped);
    EXPECT_TRUE(checkpoint.ok()) << checkpoint.status().to_string();
    out.checkpoint.emplace(std::move(*checkpoint));
    auto backbone = Backbone::load(*out.checkpoint, plan);
    EXPECT_TRUE(backbone.ok()) << backbone.status().to_string();
    out.backbone = *backbone;
    auto base = load_base_experts(*out.checkpoint, out.backbone->config(), plan.experts);
    EXPECT_TRUE(base.ok()) << base.status().to_string();
    out.base = *base;
    return out;
  }

  std::vector<float> logits() const {
    class FirstExpert final : public FeedForward {
     public:
      FirstExpert(const Module& base, ThreadPool* pool)
          : base_(base), context_{best_kernels(), *pool, scratch_} {}
      Status forward(int64_t layer, const float* x, int64_t rows, float* y) override {
        return base_.layers.at(layer).experts.front()->forward(x, rows, y, context_);
      }

     private:
      const Module& base_;
      FloatBuffer scratch_;
      ExpertContext context_;
    };
    ThreadPool pool(1);
    FirstExpert experts(*base, &pool);
    const auto cache = KvCache::create(backbone->config(), {16, 8, true, 0, KvFormat::kF32});
    EXPECT_TRUE(cache.ok());
    KvSequence kv(cache->get());
    const std::vector<int32_t> ids{1, 5, 2, 7, 3};
    EXPECT_TRUE(kv.reserve(static_cast<int64_t>(ids.size())).ok());
    std::vector<BatchSegment> batch{{ids, 0, &kv, BatchSegment::Logits::kAll}};
    Workspace ws;
    EXPECT_TRUE(backbone->forward(batch, experts, best_kernels(), pool, ws).ok());
    return {ws.logits.begin(), ws.logits.end()};
  }
  std::vector<std::vector<float>> experts() const {
    return expert_outputs(*base, backbone->config().hidden_size);
  }
};

class PackBackbone : public ::testing::Test {
 protected:
  PackBackbone() {
    std::string pattern = (fs::temp_directory_path() / "chimera-XXXXXX").string();
    dir_ = ::mkdtemp(pattern.data());
    out_ = dir_ + "/packed";
  }
  ~PackBackbone() override { fs::remove_all(dir_); }

  /// Packed into out_.
  PackBackboneReport pack(const std::string& from, const PrecisionPlan& plan) {
    fs::remove_all(out_);
    const auto report = pack_backbone({from, out_, plan});
    EXPECT_TRUE(report.ok()) << report.status().to_string();
    return report.ok() ? *report : PackBackboneReport{};
  }
  Result<std::string> fingerprint() const {
    const auto checkpoint = Checkpoint::open(out_, Residency::kMapped);
    if (!checkpoint.ok()) return checkpoint.status();
    return backbone_fingerprint(*checkpoint, "");
  }
  /// Another byte where a tensor of out_ begins.
  void change(const std::string& tensor) const {
    for (const auto& entry : fs::directory_iterator(out_)) {
      if (entry.path().extension() != ".safetensors") continue;
      const auto file = SafetensorsFile::open(entry.path().string(), Residency::kMapped);
      ASSERT_TRUE(file.ok());
      const TensorView* found = file->find(tensor);
      if (found == nullptr) continue;
      std::stringstream text;
      text << std::ifstream(entry.path(), std::ios::binary).rdbuf();
      std::string bytes = std::move(text).str();
      const std::string_view begin(reinterpret_cast<const char*>(found->bytes.data()), 16);
      const size_t at = bytes.find(begin);
      ASSERT_NE(at, std::string::npos);
      bytes[at] = static_cast<char>(bytes[at] ^ 1);
      const std::string path = entry.path().string();
      fs::remove(path);  // the mapping keeps the old one
      std::ofstream(path, std::ios::binary) << bytes;
      return;
    }
    FAIL() << tensor;
  }

  std::string dir_, out_;
};

TEST_F(PackBackbone, IsToTheBitWhatPackingAtLoadMakesInEveryFamily) {
  PrecisionPlan experts_alone;
  experts_alone.experts = Precision::kQ4;
  PrecisionPlan head_alone;
  head_alone.head = Precision::kQ8;
  const struct {
    const char* family;
    PrecisionPlan plan;
  } kCases[] = {{"olmoe_f32", Precision::kQ8},       {"qwen3_tied_bf16", Precision::kQ4},
                {"qwen3_tied_bf16", head_alone},     {"llama4_text_bf16", Precision::kQ8},
                {"mixtral_bf16", Precision::kQ4},    {"deepseek_v3_fp8", Precision::kQ8},
                {"deepseek_v3_fp8", experts_alone},  {"gpt_oss_mxfp4", Precision::kQ8},
                {"gpt_oss_mxfp4", experts_alone},    {"qwen2_moe", Precision::kQ4},
                {"deepseek_v2_lite", Precision::kQ8}};
  for (const auto& [family, plan] : kCases) {
    ASSERT_TRUE(fs::exists(golden(family))) << golden(family);
    SCOPED_TRACE(std::string(family) + " " + plan.name());
    const PackBackboneReport report = pack(golden(family), plan);
    const Loaded source = Loaded::of(golden(family), plan), packed = Loaded::of(out_, plan);
    EXPECT_GT(report.packed, 0u);
    EXPECT_EQ(packed.logits(), source.logits());
    EXPECT_EQ(packed.experts(), source.experts());
    EXPECT_EQ(*backbone_fingerprint(*source.checkpoint, ""), report.fingerprint);
    EXPECT_EQ(*fingerprint(), report.fingerprint);
    const auto proof = verify_packed_backbone(out_, golden(family));
    ASSERT_TRUE(proof.ok()) << proof.status().to_string();
    EXPECT_EQ(proof->packed, report.packed);
    EXPECT_EQ(proof->bytes, report.bytes);
  }
}

TEST_F(PackBackbone, IsUsedInPlace) {
  pack(golden("olmoe_f32"), Precision::kQ8);
  const Loaded packed = Loaded::of(out_, Precision::kQ8);
  const std::string name = "model.layers.0.self_attn.q_proj.weight";
  const TensorView* stored = packed.checkpoint->find(name);
  ASSERT_NE(stored, nullptr);
  EXPECT_EQ(packed.backbone->weight(0, TensorRole::kQ)->data, stored->bytes.data());
}

TEST_F(PackBackbone, AnotherPrecisionIsRefusedByName) {
  pack(golden("olmoe_f32"), Precision::kQ8);
  const auto checkpoint = Checkpoint::open(out_, Residency::kMapped);
  ASSERT_TRUE(checkpoint.ok());
  for (const Precision asked : {Precision::kBF16, Precision::kQ4}) {
    const auto refused = Backbone::load(*checkpoint, asked);
    EXPECT_EQ(refused.status().code(), Code::kFailedPrecondition);
    EXPECT_THAT(refused.status().message(), HasSubstr("is packed for precision q8 (expected "));
  }
}

TEST_F(PackBackbone, GoesByTheNameOfItsSourceOnlyWithTheTensorsItWasPackedInto) {
  const PackBackboneReport report = pack(golden("olmoe_f32"), Precision::kQ8);
  // Experts are no part of a fingerprint; who has the source sees that they were changed.
  change("model.layers.1.mlp.experts.2.up_proj.weight");
  EXPECT_EQ(*fingerprint(), report.fingerprint);
  const auto proof = verify_packed_backbone(out_, golden("olmoe_f32"));
  EXPECT_EQ(proof.status().code(), Code::kDataCorrupt);
  EXPECT_THAT(proof.status().message(), HasSubstr("experts.2.up_proj.weight"));

  change("model.layers.1.self_attn.k_proj.weight");
  EXPECT_EQ(fingerprint().status().code(), Code::kDataCorrupt);
  EXPECT_THAT(fingerprint().status().message(), HasSubstr("packed.json: found tensors of content"));

  pack(golden("olmoe_f32"), Precision::kQ8);
  const std::string record = out_ + "/packed.json";
  std::stringstream text;
  text << std::ifstream(record).rdbuf();
  fs::remove(record);
  EXPECT_EQ(fingerprint().status().code(), Code::kFailedPrecondition);
  EXPECT_THAT(fingerprint().status().message(), HasSubstr("and no packed.json"));
  // A record that says something else, or nothing.
  const auto broken = [&](const std::string& from, const std::string& to) {
    std::string changed = text.str();
    changed.replace(changed.find(from), from.size(), to);
    std::ofstream(record) << changed;
    return fingerprint().status();
  };
  EXPECT_THAT(broken("packed-backbone/1", "packed-backbone/2").message(), HasSubstr("\"chimera\""));
  EXPECT_THAT(broken("\"sha256:", "\"sha257:").message(), HasSubstr("\"source\""));
  EXPECT_THAT(broken("\"head\": \"q8\"", "\"head\": \"q9\"").message(),
              HasSubstr("precision.head: \"q9\" (expected f32, bf16, q8 or q4)"));
  EXPECT_THAT(broken("\"source\"", "\"sauce\"").message(), HasSubstr("\"source\": null"));
  EXPECT_THAT(broken("{", "[").message(), HasSubstr("packed.json"));
}

TEST_F(PackBackbone, ARecordBesideNumbersLendsThemNoName) {
  const std::string other = pack(golden("olmoe_f32"), Precision::kQ8).fingerprint;
  fs::remove_all(out_);
  fs::copy(golden("qwen3_tied_bf16"), out_);
  const auto numbers = Checkpoint::open(out_, Residency::kMapped);
  ASSERT_TRUE(numbers.ok());
  PackedRecord record{other, *backbone_content(*numbers), PrecisionPlan()};
  const auto claimed = [&] {
    std::ofstream(out_ + "/packed.json") << packed_record_text(record);
    return fingerprint().status();
  };
  EXPECT_EQ(claimed().code(), Code::kDataCorrupt);
  EXPECT_THAT(claimed().message(), HasSubstr("(expected a class in q8 or q4)"));
  record.precision = Precision::kQ8;
  EXPECT_EQ(claimed().code(), Code::kDataCorrupt);
  EXPECT_THAT(claimed().message(), HasSubstr("beside a checkpoint without packed tensors"));
}

TEST_F(PackBackbone, FilesBesideTheWeightsAreProvenToo) {
  const std::string from = dir_ + "/from";
  fs::copy(golden("olmoe_f32"), from);
  std::ofstream(from + "/generation_config.json") << "{}";
  pack(from, Precision::kQ8);
  ASSERT_TRUE(verify_packed_backbone(out_, from).ok());
  std::ofstream(out_ + "/generation_config.json") << "{\"eos_token_id\": 3}";
  const auto proof = verify_packed_backbone(out_, from);
  EXPECT_EQ(proof.status().code(), Code::kDataCorrupt);
  EXPECT_THAT(proof.status().message(), HasSubstr("found another generation_config.json"));
}

TEST_F(PackBackbone, ASourceThatChangesMeanwhileIsNoticed) {
  const std::string from = dir_ + "/from";
  fs::copy(golden("olmoe_f32"), from);
  const auto source = Checkpoint::open(from, Residency::kMapped);
  ASSERT_TRUE(source.ok());
  EXPECT_TRUE(check_unchanged(*source).ok());
  fs::copy(from + "/model.safetensors", from + "/other");
  fs::rename(from + "/other", from + "/model.safetensors");
  EXPECT_EQ(check_unchanged(*source).code(), Code::kDataCorrupt);
}

TEST_F(PackBackbone, WhoWantsTheNumbersIsToldWhereTheyAre) {
  pack(golden("olmoe_f32"), Precision::kQ8);
  SplitOptions split;
  split.checkpoint_dir = out_;
  split.backbone_out = dir_ + "/backbone";
  split.modules_out = dir_ + "/modules";
  split.modules = {*parse_split_module("legal=1")};
  ConvertOptions convert;
  convert.from = out_;
  convert.out = dir_ + "/converted";
  for (const Status& refused :
       {split_checkpoint(split).status(), convert_checkpoint(convert).status(),
        pack_backbone({out_, dir_ + "/again", Precision::kQ8}).status()}) {
    EXPECT_EQ(refused.code(), Code::kFailedPrecondition) << refused.to_string();
    EXPECT_THAT(refused.message(), HasSubstr("is packed (expected its numbers)"));
  }
  const auto nothing = pack_backbone({golden("olmoe_f32"), dir_ + "/f32", Precision::kF32});
  EXPECT_EQ(nothing.status().code(), Code::kInvalidArgument);
  EXPECT_EQ(std::distance(fs::directory_iterator(dir_), {}), 1);  // packed alone
  EXPECT_EQ(verify_packed_backbone(golden("olmoe_f32"), out_).status().code(),
            Code::kFailedPrecondition);
}

}  // namespace
}  // namespace chimera
