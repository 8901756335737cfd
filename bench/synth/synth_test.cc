// Checkpoints of random weights: what is written is what a loader takes, the same every time, and
// as GGUF the same model.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "backbone/checkpoint/check.h"
#include "backbone/checkpoint/checkpoint.h"
#include "backbone/gguf/gguf_write.h"
#include "bench/synth/checkpoint.h"
#include "compute/tensor/block_types.h"

namespace chimera::bench {
namespace {

using ::testing::HasSubstr;

constexpr const char* kOlmoe =
    "chimera: shape/1\n"
    "config:\n"
    "  model_type: olmoe\n"
    "  hidden_size: 256\n"
    "  intermediate_size: 256\n"
    "  num_hidden_layers: 2\n"
    "  num_attention_heads: 2\n"
    "  num_experts: 3\n"
    "  num_experts_per_tok: 2\n"
    "  vocab_size: 64\n"
    "  tie_word_embeddings: false\n";

class Synth : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "synth_test_XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  std::string at(const std::string& name) const { return dir_ + "/" + name; }
  static Shape shape(const std::string& yaml = kOlmoe) {
    Result<Shape> read = parse_shape(yaml, "s.yaml");
    EXPECT_TRUE(read.ok()) << read.status().to_string();
    return read.ok() ? *read : Shape();
  }
  static Checkpoint opened(const std::string& path) {
    Result<Checkpoint> checkpoint = Checkpoint::open(path, Residency::kAutomatic);
    EXPECT_TRUE(checkpoint.ok()) << checkpoint.status().to_string();
    return std::move(*checkpoint);
  }
  static std::string text_of(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  std::string dir_;
};

TEST_F(Synth, DirectoryIsACompleteCheckpointAndTheSameEveryTime) {
  for (const char* name : {"a", "b"}) {
    const Status status = write_synthetic(shape(), StoredType::kBF16, at(name));
    ASSERT_TRUE(status.ok()) << status.to_string();
  }
  EXPECT_EQ(text_of(at("a/model.safetensors")), text_of(at("b/model.safetensors")));
  const Checkpoint checkpoint = opened(at("a"));
  const Result<ModelConfig> config = read_model_config(checkpoint);
  ASSERT_TRUE(config.ok()) << config.status().to_string();
  EXPECT_TRUE(check_backbone_tensors(checkpoint, *config).ok());
  Shape other = shape();
  other.seed = 2;
  ASSERT_TRUE(write_synthetic(other, StoredType::kBF16, at("c")).ok());
  EXPECT_NE(text_of(at("a/model.safetensors")), text_of(at("c/model.safetensors")));
}

TEST_F(Synth, ExistingPathsAndTypesThatAreNoneAreRefused) {
  ASSERT_TRUE(write_synthetic(shape(), StoredType::kF32, at("a")).ok());
  EXPECT_EQ(write_synthetic(shape(), StoredType::kF32, at("a")).code(), Code::kAlreadyExists);
  EXPECT_EQ(write_synthetic(shape(), StoredType::kQ8_0, at("b")).code(), Code::kInvalidArgument);
  EXPECT_FALSE(std::filesystem::exists(at("b")));
  ASSERT_TRUE(write_synthetic_gguf(shape(), StoredType::kF32, at("g.gguf")).ok());
  EXPECT_EQ(write_synthetic_gguf(shape(), StoredType::kF32, at("g.gguf")).code(),
            Code::kAlreadyExists);
}

TEST_F(Synth, GgufHoldsTheSameMatrices) {
  ASSERT_TRUE(write_synthetic(shape(), StoredType::kBF16, at("a")).ok());
  ASSERT_TRUE(write_synthetic_gguf(shape(), StoredType::kBF16, at("a.gguf")).ok());
  const Checkpoint directory = opened(at("a")), file = opened(at("a.gguf"));
  const std::vector<std::string> names = directory.names();
  EXPECT_EQ(names, file.names());
  size_t compared = 0;
  for (const std::string& name : names) {
    const TensorView *a = directory.find(name), *b = file.find(name);
    ASSERT_TRUE(a != nullptr && b != nullptr) << name;
    EXPECT_EQ(a->shape, b->shape) << name;
    if (b->dtype == DType::kF32) continue;  // vectors and routers
    ++compared;
    EXPECT_TRUE(std::ranges::equal(a->bytes, b->bytes)) << name;
  }
  EXPECT_GE(compared, 2 * (4 + 9) + 2);
}

/// Root mean square of a tensor in blocks.
double size_of(const TensorView& t) {
  std::vector<float> values(static_cast<size_t>(t.elements()));
  widen_blocks(t.dtype, t.bytes.data(), t.elements(), values.data());
  double squares = 0;
  for (const float v : values) squares += double{v} * v;
  return std::sqrt(squares / static_cast<double>(values.size()));
}

TEST_F(Synth, GgufHasAVocabularyWhereThereIsRoom) {
  Shape large = shape();
  large.config.vocab_size = 300;
  ASSERT_TRUE(write_synthetic_gguf(shape(), StoredType::kF32, at("small")).ok());
  ASSERT_TRUE(write_synthetic_gguf(large, StoredType::kF32, at("large")).ok());
  EXPECT_FALSE(opened(at("small")).has_tokenizer());
  EXPECT_TRUE(opened(at("large")).has_tokenizer());
}

TEST_F(Synth, BlocksHaveTheSizeThatProductsKeep) {
  for (const StoredType type : {StoredType::kQ8_0, StoredType::kQ4_0, StoredType::kQ4_K,
                                StoredType::kQ6_K, StoredType::kMXFP4}) {
    const std::string path = at(kStoredTypeNames.text(type));
    const Status status = write_synthetic_gguf(shape(), type, path);
    ASSERT_TRUE(status.ok()) << status.to_string();
    const Checkpoint file = opened(path);
    const TensorView* expert = file.find("model.layers.1.mlp.experts.2.up_proj.weight");
    ASSERT_NE(expert, nullptr);
    EXPECT_EQ(expert->dtype, dtype_of(type));
    EXPECT_EQ(first_non_finite_block(expert->dtype, expert->bytes), -1);
    // 65,536 weights of 1 / 16: MXFP4 is a power of two near it.
    EXPECT_NEAR(size_of(*expert), 1.0 / 16, type == StoredType::kMXFP4 ? 0.03 : 0.002);
  }
}

TEST_F(Synth, ShapesAreReadStrictly) {
  const auto message = [](const std::string& yaml) {
    const Result<Shape> read = parse_shape(yaml, "s.yaml");
    EXPECT_FALSE(read.ok());
    return read.ok() ? "" : read.status().to_string();
  };
  const std::string both = message("chimera: shape/2\nsize: 3\n");
  EXPECT_THAT(both, HasSubstr("s.yaml:1:10: chimera"));
  EXPECT_THAT(both, HasSubstr("s.yaml:2:1: size"));
  EXPECT_THAT(both, HasSubstr("config"));
  EXPECT_THAT(message("chimera: shape/1\nconfig: {model_type: unheard_of}\n"),
              HasSubstr("unheard_of"));
  EXPECT_THAT(message("chimera: shape/1\nconfig: {model_type: gpt_oss, num_local_experts: 4, "
                      "hidden_size: 64, intermediate_size: 64, num_hidden_layers: 1, "
                      "num_attention_heads: 8, vocab_size: 8, "
                      "quantization_config: {quant_method: mxfp4}}\n"),
              HasSubstr("mxfp4"));
}

TEST_F(Synth, ShapesOfTheRepositoryAreShapes) {
  size_t shapes = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(CHIMERA_SOURCE_DIR "/bench/shapes")) {
    const Result<Shape> read = read_shape(entry.path());
    EXPECT_TRUE(read.ok()) << read.status().to_string();
    ++shapes;
  }
  EXPECT_GE(shapes, 4);
}

TEST_F(Synth, WriterOfGgufRefusesWhatItsReaderWould) {
  const std::vector<TensorView> twice{ones("a", DType::kF32, 2), ones("a", DType::kF32, 2)};
  EXPECT_EQ(write_gguf(at("x"), {}, twice).code(), Code::kInvalidArgument);
  EXPECT_EQ(write_gguf(at("x"), {{"k", true}, {"k", true}}, {}).code(), Code::kInvalidArgument);
  TensorView odd = ones("a", DType::kF32, 2);
  odd.dtype = DType::kU8;
  EXPECT_THAT(write_gguf(at("x"), {}, {odd}).to_string(), HasSubstr("expected F32, F16"));
  odd.dtype = DType::kF16;  // bytes of F32
  EXPECT_EQ(write_gguf(at("x"), {}, {odd}).code(), Code::kInvalidArgument);
  EXPECT_FALSE(std::filesystem::exists(at("x")));
}

}  // namespace
}  // namespace chimera::bench
