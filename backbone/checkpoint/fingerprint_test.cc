// backbone_fingerprint: what changes it, what does not, and the cache.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "backbone/checkpoint/fingerprint.h"
#include "base/io/digest.h"

namespace chimera {
namespace {

namespace fs = std::filesystem;

const std::string kSource = CHIMERA_SOURCE_DIR "/../shared/golden/open/models/olmoe_f32";

class FingerprintTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!fs::exists(kSource)) GTEST_SKIP() << kSource << " is absent";
    std::string pattern = testing::TempDir() + "fingerprint_test_XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    root_ = pattern;
    dir_ = root_ + "/checkpoint";
    cache_ = root_ + "/cache";
    fs::create_directory(dir_);
    for (const char* name : {"/config.json", "/model.safetensors"}) {
      std::ofstream(dir_ + name, std::ios::binary)
          << std::ifstream(kSource + name, std::ios::binary).rdbuf();
    }
    const auto file = SafetensorsFile::open(dir_ + "/model.safetensors", Residency::kCopied);
    ASSERT_TRUE(file.ok());
    tensors_ = file->tensors();
    original_ = fingerprint();
    ASSERT_TRUE(is_sha256(original_));
  }
  void TearDown() override { fs::remove_all(root_); }

  std::string fingerprint(const std::string& cache = "") const {
    const auto checkpoint = Checkpoint::open(dir_, Residency::kCopied);
    EXPECT_TRUE(checkpoint.ok()) << checkpoint.status().to_string();
    const auto found = backbone_fingerprint(*checkpoint, cache);
    EXPECT_TRUE(found.ok()) << found.status().to_string();
    return found.ok() ? *found : "";
  }
  /// The tensor of that name, over bytes that may be changed.
  TensorView& own(const std::string& name) {
    for (TensorView& t : tensors_) {
      if (t.name != name) continue;
      changed_.emplace_back(t.bytes.begin(), t.bytes.end());
      t.bytes = changed_.back();
      return t;
    }
    ADD_FAILURE() << name;
    return tensors_[0];
  }
  void flip_a_bit(const std::string& name) {
    own(name);
    changed_.back()[5] ^= std::byte{1};
  }
  void save() const {
    ASSERT_TRUE(write_safetensors(dir_ + "/model.safetensors", tensors_, {}).ok());
  }
  /// Makes the files look long settled; the cache passes over what was written just now.
  void age() const {
    const timespec old[2] = {{1'600'000'000, 0}, {1'600'000'000, 0}};
    ::utimensat(AT_FDCWD, (dir_ + "/model.safetensors").c_str(), old, 0);
  }

  std::string root_, dir_, cache_, original_;
  std::vector<TensorView> tensors_;
  std::vector<std::vector<std::byte>> changed_;
};

TEST_F(FingerprintTest, DependsOnEveryBackboneTensor) {
  for (const char* name :
       {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight",
        "model.layers.0.self_attn.q_proj.weight", "model.layers.1.mlp.gate.weight"}) {
    const auto before = tensors_;
    flip_a_bit(name);
    save();
    EXPECT_NE(fingerprint(), original_) << name;
    tensors_ = before;
  }
}

TEST_F(FingerprintTest, DoesNotDependOnRoutedExperts) {
  flip_a_bit("model.layers.0.mlp.experts.3.up_proj.weight");
  save();
  EXPECT_EQ(fingerprint(), original_);
  std::erase_if(tensors_,
                [](const TensorView& t) { return t.name.find(".experts.") != std::string::npos; });
  save();
  EXPECT_EQ(fingerprint(), original_);
}

TEST_F(FingerprintTest, DependsOnNameShapeAndDtype) {
  for (TensorView& t : tensors_) {
    if (t.name == "model.layers.0.self_attn.q_proj.weight") {
      const auto shape = t.shape;
      t.shape = {shape[0] / 2, shape[1] * 2};
      save();
      EXPECT_NE(fingerprint(), original_);
      t.shape = shape;
      t.dtype = DType::kI32;
      save();
      EXPECT_NE(fingerprint(), original_);
      t.dtype = DType::kF32;
      t.name += "2";
      save();
      EXPECT_NE(fingerprint(), original_);
    }
  }
}

TEST_F(FingerprintTest, OrderAndShardingDoNotMatter) {
  std::reverse(tensors_.begin(), tensors_.end());
  save();
  EXPECT_EQ(fingerprint(), original_);
  fs::remove(dir_ + "/model.safetensors");
  std::string map;
  for (size_t part = 0; part < 2; ++part) {
    const std::string name = "model-" + std::to_string(part) + ".safetensors";
    std::vector<TensorView> some;
    for (size_t i = part; i < tensors_.size(); i += 2) {
      some.push_back(tensors_[i]);
      map += (map.empty() ? "\"" : ",\"") + tensors_[i].name + "\":\"" + name + "\"";
    }
    ASSERT_TRUE(write_safetensors(dir_ + "/" + name, some, {}).ok());
  }
  std::ofstream(dir_ + "/model.safetensors.index.json") << "{\"weight_map\":{" << map << "}}";
  EXPECT_EQ(fingerprint(), original_);
}

TEST_F(FingerprintTest, FreshFilesAreNotCached) {
  save();
  EXPECT_EQ(fingerprint(cache_), original_);
  EXPECT_FALSE(fs::exists(cache_));
}

TEST_F(FingerprintTest, CacheIsUsedUntilTheFileChanges) {
  age();
  ::usleep(3'200'000);                              // the change time cannot be set
  EXPECT_EQ(fingerprint("/proc/none"), original_);  // a cache that cannot be written is no error
  EXPECT_EQ(fingerprint(cache_), original_);
  ASSERT_EQ(std::distance(fs::directory_iterator(cache_), {}), 1);
  const fs::path entry = fs::directory_iterator(cache_)->path();
  const std::string planted = "sha256:" + std::string(64, '0');
  std::ofstream(entry) << planted;
  EXPECT_EQ(fingerprint(cache_), planted);  // so it was read
  std::ofstream(entry) << "rubbish";
  EXPECT_EQ(fingerprint(cache_), original_);  // computed again and mended
  std::ofstream(entry) << planted;
  flip_a_bit("model.norm.weight");
  save();
  const std::string changed = fingerprint(cache_);
  EXPECT_NE(changed, planted);
  EXPECT_NE(changed, original_);
}

}  // namespace
}  // namespace chimera
