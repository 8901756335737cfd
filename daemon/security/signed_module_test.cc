// A signed module from its files to its experts: every bit of it, and files that change while it is
// looked at.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <thread>

#include "backbone/checkpoint/safetensors.h"
#include "base/io/digest.h"
#include "daemon/security/module_trust.h"
#include "experts/kinds/load.h"

namespace chimera {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kHidden = 4, kWidth = 4;
const std::string kFingerprint = "sha256:" + std::string(64, 'b');
constexpr const char* kFiles[] = {"module.yaml", "module.yaml.minisig", "weights.safetensors"};

std::string slurp(const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
void spill(const std::string& file, const std::string& text) {
  std::ofstream(file, std::ios::binary | std::ios::trunc) << text;
}

class SignedModule : public testing::Test {
 protected:
  void SetUp() override {
    dir_ = fs::temp_directory_path() / "chimera-signed-XXXXXX";
    ASSERT_NE(mkdtemp(dir_.data()), nullptr);
    key_ = *minisign::make_key();
    fs::create_directories(dir_ + "/keys");
    spill(dir_ + "/keys/owner.pub", minisign::format_public_key(key_.public_key()));
    trust_ = *ModuleTrust::open({{}, dir_ + "/keys", true, {}});
    write(dir_ + "/legal", 0.5f, key_);
  }
  void TearDown() override { fs::remove_all(dir_); }

  /// The module with all its weights at `value`.
  static void write(const std::string& dir, float value, const minisign::SecretKey& key) {
    fs::create_directories(dir);
    std::vector<TensorView> tensors;
    const auto add = [&](const std::string& name, std::vector<int64_t> shape) {
      TensorView view;
      view.name = name;
      view.shape = std::move(shape);
      auto values =
          std::make_shared<std::vector<float>>(static_cast<size_t>(view.elements()), value);
      view.bytes = std::as_bytes(std::span(*values));
      view.owner = values;
      tensors.push_back(std::move(view));
    };
    add("layers.0.gate.weight", {1, kHidden});
    add("layers.0.experts.0.gate_proj.weight", {kWidth, kHidden});
    add("layers.0.experts.0.up_proj.weight", {kWidth, kHidden});
    add("layers.0.experts.0.down_proj.weight", {kHidden, kWidth});
    ASSERT_TRUE(write_safetensors(dir + "/weights.safetensors", tensors, {}).ok());
    Manifest manifest;
    manifest.name = "legal";
    manifest.version = "1.0.0";
    manifest.backbone_fingerprint = kFingerprint;
    manifest.hidden_size = kHidden;
    manifest.files = {{"weights.safetensors", *sha256_of_file(dir + "/weights.safetensors")}};
    const std::string text = manifest_yaml(manifest);
    spill(dir + "/module.yaml", text);
    spill(dir + "/module.yaml.minisig", minisign::sign(text, key, "file:module.yaml"));
  }

  Result<std::shared_ptr<const Module>> load() const {
    BackboneInfo backbone;
    backbone.config.hidden_size = kHidden;
    backbone.config.intermediate_size = kWidth;
    backbone.config.num_layers = 1;
    backbone.config.num_experts = 4;
    backbone.fingerprint = kFingerprint;
    backbone.precision = Precision::kF32;
    backbone.accept = [this](const std::string& dir, const Manifest& manifest) {
      return trust_->check(dir, manifest);
    };
    return load_module(dir_ + "/legal", backbone);
  }

  std::string dir_;
  minisign::SecretKey key_;
  std::unique_ptr<ModuleTrust> trust_;
};

TEST_F(SignedModule, EveryFlippedBitIsRefused) {
  ASSERT_TRUE(load().ok()) << load().status().to_string();
  for (const std::string file : kFiles) {
    const std::string path = dir_ + "/legal/" + file;
    const std::string good = slurp(path);
    for (size_t i = 0; i < good.size() * 8; ++i) {
      std::string bad = good;
      bad[i / 8] = static_cast<char>(bad[i / 8] ^ (1 << i % 8));
      spill(path, bad);
      ASSERT_FALSE(load().ok()) << file << " bit " << i;
    }
    spill(path, good);
  }
  EXPECT_TRUE(load().ok());
}

TEST_F(SignedModule, FilesThatChangeWhileItIsLookedAt) {
  // A module of somebody else's whose files belong together, by turns in the place of the good one:
  // all of them, and each alone.
  write(dir_ + "/other", 0.25f, *minisign::make_key());
  const std::string good = load().value()->manifest.digest;
  std::atomic<bool> stop{false};
  std::thread racer([&] {
    for (uint32_t turn = 1; !stop; ++turn) {
      for (size_t f = 0; f < std::size(kFiles); ++f) {
        if ((turn >> f & 1) == 0) continue;
        const std::string there = dir_ + "/legal/" + kFiles[f];
        fs::copy_file(dir_ + "/other/" + kFiles[f], dir_ + "/new");
        fs::create_hard_link(there, dir_ + "/old");
        fs::rename(dir_ + "/new", there);
        fs::rename(dir_ + "/old", there);
      }
    }
  });
  int served = 0;
  for (int i = 0; i < 1000 || (served == 0 && i < 100'000); ++i) {
    const auto module = load();
    if (!module.ok()) continue;
    ++served;
    EXPECT_EQ((*module)->manifest.digest, good);
  }
  stop = true;
  racer.join();
  EXPECT_GT(served, 0);
  EXPECT_TRUE(load().ok());
}

}  // namespace
}  // namespace chimera
