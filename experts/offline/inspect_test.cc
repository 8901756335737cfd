// What inspect says of a checkpoint is what loading it says.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>

#include "backbone/backbone.h"
#include "backbone/checkpoint/check.h"
#include "experts/kinds/weights.h"
#include "experts/offline/module_report.h"

namespace chimera {
namespace {

namespace fs = std::filesystem;

class Inspect : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "chimera-XXXXXX").string();
    dir_ = ::mkdtemp(pattern.data());
    const fs::path golden = fs::path(CHIMERA_SOURCE_DIR) / "tests/golden/families" / GetParam();
    fs::copy(golden / "config.json", dir_);
    auto whole = Checkpoint::open(golden.string(), Residency::kCopied);
    ASSERT_TRUE(whole.ok()) << whole.status().to_string();
    whole_.emplace(std::move(*whole));
  }
  void TearDown() override { fs::remove_all(dir_); }

  /// Writes the checkpoint with one tensor changed, or left out when `change` says so.
  void write(const std::string& name, const std::function<bool(TensorView&)>& change) {
    std::vector<TensorView> tensors;
    for (const std::string& each : whole_->names()) {
      TensorView tensor = *whole_->find(each);
      if (each != name || change(tensor)) tensors.push_back(std::move(tensor));
    }
    const Status written = write_safetensors(dir_ + "/model.safetensors", tensors, {});
    ASSERT_TRUE(written.ok()) << written.to_string();
  }

  /// What the daemon says at its start, in its order.
  static Status load(const Checkpoint& checkpoint) {
    const auto backbone = Backbone::load(checkpoint, Precision::kF32);
    if (!backbone.ok()) return backbone.status();
    return load_base_experts(checkpoint, (*backbone)->config(), Precision::kF32).status();
  }

  void expect_same_verdict(const std::string& what, bool refused) {
    SCOPED_TRACE(what);
    const auto checkpoint = Checkpoint::open(dir_, Residency::kMapped);
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().to_string();
    const Status loaded = load(*checkpoint);
    EXPECT_EQ(loaded.ok(), !refused) << loaded.to_string();
    Status verdict;
    const auto report = inspect_directory(dir_, &verdict);
    ASSERT_TRUE(report.ok()) << report.status().to_string();
    EXPECT_EQ(verdict.to_string(), loaded.to_string());
    EXPECT_EQ(verdict.code(), loaded.code());
  }

  std::string dir_;
  std::optional<Checkpoint> whole_;
};

/// The tensors of the first and the last layer stand for those of all.
bool is_tried(const std::string& name, int64_t layers) {
  const size_t at = name.find("layers.");
  if (at == std::string::npos) return true;
  const std::string layer = name.substr(at + 7, name.find('.', at + 7) - at - 7);
  const bool other_expert = name.find("experts.") != std::string::npos &&
                            name.find("experts.0.") == std::string::npos &&
                            name.find("experts.gate_up") == std::string::npos &&
                            name.find("experts.down") == std::string::npos;
  return !other_expert && (layer == "0" || layer == std::to_string(layers - 1));
}

TEST_P(Inspect, SaysOfEveryTensorWhatTheLoaderSays) {
  const auto config = read_model_config(*whole_);
  ASSERT_TRUE(config.ok()) << config.status().to_string();
  write("", [](TensorView&) { return true; });
  expect_same_verdict("as it is", false);
  int tried = 0;
  for (const std::string& name : whole_->names()) {
    if (!is_tried(name, config->num_layers)) continue;
    write(name, [](TensorView&) { return false; });
    expect_same_verdict(name + " missing", true);
    write(name, [](TensorView& t) {
      t.name += ".renamed";
      return true;
    });
    expect_same_verdict(name + " renamed", true);
    write(name, [](TensorView& t) {  // same bytes, one more dimension
      t.shape.insert(t.shape.begin(), 1);
      return true;
    });
    expect_same_verdict(name + " misshaped", true);
    const auto elements = static_cast<size_t>(whole_->find(name)->elements());
    const std::vector<uint32_t> numbers(elements, 1);
    write(name, [&](TensorView& t) {
      t.dtype = DType::kU32;
      t.bytes = std::as_bytes(std::span(numbers));
      return true;
    });
    expect_same_verdict(name + " of U32", true);
    ++tried;
  }
  EXPECT_GT(tried, 15);
}

TEST_P(Inspect, FindsNumbersThatLoadingRefuses) {
  const auto config = read_model_config(*whole_);
  ASSERT_TRUE(config.ok()) << config.status().to_string();
  // Layers that predict further tokens come after those that run, and are not read.
  const std::string last = fmt::format("layers.{}.", config->num_layers - 1);
  std::string expert;
  for (const std::string& name : whole_->names()) {
    if (name.find(last) == std::string::npos) continue;
    const DType dtype = whole_->find(name)->dtype;
    const bool plain = dtype == DType::kF32 || dtype == DType::kBF16;
    if (plain && name.find("experts.") != std::string::npos &&
        name.find("shared") == std::string::npos && name.find("bias") == std::string::npos)
      expert = name;
  }
  if (expert.empty()) GTEST_SKIP() << "no plain experts here";
  const TensorView& whole = *whole_->find(expert);
  std::vector<std::byte> numbers(whole.bytes.begin(), whole.bytes.end());
  std::fill(numbers.end() - 4, numbers.end(), std::byte{0xff});  // a NaN, in F32 as in BF16
  write(expert, [&](TensorView& t) {
    t.bytes = numbers;
    return true;
  });
  expect_same_verdict(expert + " with a NaN", true);
}

TEST_P(Inspect, FindsATokenizerThatLoadingRefuses) {
  write("", [](TensorView&) { return true; });
  std::ofstream(dir_ + "/tokenizer.json") << "version https://git-lfs.github.com/spec/v1\noid x\n";
  Status verdict;
  const auto report = inspect_directory(dir_, &verdict);
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  EXPECT_NE(verdict.to_string().find("tokenizer.json: is a Git LFS pointer"), std::string::npos)
      << verdict.to_string();
}

INSTANTIATE_TEST_SUITE_P(Families, Inspect,
                         testing::Values("deepseek_v2_grouped", "deepseek_v3_grouped",
                                         "deepseek_v3_direct", "gpt_oss_mxfp4",
                                         "llama4_two_experts", "llama_biases", "qwen2_moe",
                                         "qwen3_moe_sparse", "olmoe_clip"),
                         [](const auto& name) { return name.param; });

TEST(InspectRefused, AnUnsupportedConfigurationIsReportedNotThrown) {
  std::string pattern = (fs::temp_directory_path() / "chimera-XXXXXX").string();
  const std::string dir = ::mkdtemp(pattern.data());
  const fs::path golden = fs::path(CHIMERA_SOURCE_DIR) / "tests/golden/families/olmoe_clip";
  fs::copy(golden / "model.safetensors", dir);
  for (const char* config :
       {R"({"model_type": "deepseek_v2"})", R"({"model_type": "olmoe"})", "[]", "{"}) {
    std::ofstream(dir + "/config.json") << config;
    Status verdict;
    const auto report = inspect_directory(dir, &verdict);
    ASSERT_TRUE(report.ok()) << report.status().to_string();
    EXPECT_FALSE(verdict.ok());
    EXPECT_NE(verdict.message().find("config.json"), std::string::npos) << verdict.to_string();
  }
  fs::remove_all(dir);
}

}  // namespace
}  // namespace chimera
