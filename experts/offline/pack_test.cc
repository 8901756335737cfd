// Modules packed beforehand: what a load makes of them is what packing at load makes, to the bit.
#include "experts/offline/pack.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>

#include "backbone/checkpoint/safetensors.h"
#include "base/io/digest.h"
#include "compute/tensor/memory.h"
#include "experts/kinds/load.h"
#include "experts/kinds/size.h"
#include "experts/kinds/testing.h"
#include "experts/offline/module_report.h"

namespace chimera {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

constexpr int64_t kHidden = 48;
constexpr int64_t kWidth = 70;
const std::string kFingerprint = "sha256:" + std::string(64, 'b');

class Pack : public ::testing::Test {
 protected:
  Pack() {
    std::string pattern = (fs::temp_directory_path() / "chimera-XXXXXX").string();
    dir_ = ::mkdtemp(pattern.data());
    from_ = dir_ + "/from";
    out_ = dir_ + "/out";
    fs::create_directory(from_);
    manifest_.name = "legal";
    manifest_.version = "1.0.0";
    manifest_.backbone_fingerprint = kFingerprint;
    manifest_.hidden_size = kHidden;
    manifest_.layers = {{0, 2}};
    for (const int64_t layer : *manifest_.layers) {
      add(fmt::format("layers.{}.gate.weight", layer), {2, kHidden});
      for (int64_t e = 0; e < 2; ++e) {
        const std::string prefix = fmt::format("layers.{}.experts.{}.", layer, e);
        add(prefix + "gate_proj.weight", {kWidth, kHidden});
        add(prefix + "up_proj.weight", {kWidth, kHidden});
        add(prefix + "down_proj.weight", {kHidden, kWidth});
      }
    }
  }
  ~Pack() override { fs::remove_all(dir_); }

  void add(const std::string& name, std::vector<int64_t> shape) {
    std::byte* to = nullptr;
    TensorView t = make_tensor(name, DType::kBF16, std::move(shape), &to);
    std::mt19937 rng(static_cast<uint32_t>(tensors_.size()) + 1);
    std::normal_distribution<float> normal(0.0f, 0.5f);
    for (int64_t i = 0; i < t.elements(); ++i) {
      const uint16_t value = f32_to_bf16(normal(rng));
      std::memcpy(to + 2 * i, &value, sizeof(value));
    }
    tensors_.push_back(std::move(t));
  }
  void write() {
    const std::string weights = from_ + "/weights.safetensors";
    ASSERT_TRUE(write_safetensors(weights, tensors_, {}).ok());
    std::ofstream(from_ + "/README.md") << "of legal\n";
    manifest_.files = {{"weights.safetensors", *sha256_of_file(weights)},
                       {"README.md", *sha256_of_file(from_ + "/README.md")}};
    std::ofstream(from_ + "/module.yaml") << manifest_yaml(manifest_);
  }
  static BackboneInfo backbone(Precision precision) {
    BackboneInfo info;
    info.config.hidden_size = kHidden;
    info.config.intermediate_size = kWidth;
    info.config.num_layers = 3;
    info.config.num_experts = 4;
    info.fingerprint = kFingerprint;
    info.precision = precision;
    return info;
  }
  Result<PackReport> pack(Precision precision) { return pack_module({from_, out_, precision}); }
  static std::vector<std::vector<float>> outputs_of(const Module& module) {
    return expert_outputs(module, kHidden);
  }

  Manifest manifest_;
  std::vector<TensorView> tensors_;
  std::string dir_, from_, out_;
};

TEST_F(Pack, IsToTheBitWhatALoadMakesAndNeedsNoPrecision) {
  write();
  for (const Precision precision : {Precision::kQ8, Precision::kQ4}) {
    SCOPED_TRACE(kPrecisionNames.name(precision));
    fs::remove_all(out_);
    const auto report = pack(precision);
    ASSERT_TRUE(report.ok()) << report.status().to_string();
    EXPECT_EQ(report->name, "legal");
    EXPECT_EQ(report->packed, 12u);
    EXPECT_EQ(report->kept, 2u);
    const auto manifest = read_manifest(out_);
    ASSERT_TRUE(manifest.ok()) << manifest.status().to_string();
    EXPECT_EQ(manifest->digest, report->digest);
    EXPECT_EQ(manifest->precision, precision);
    ASSERT_EQ(manifest->parents.size(), 1u);
    EXPECT_THAT(manifest->parents[0], HasSubstr(read_manifest(from_)->digest));
    EXPECT_TRUE(verify_module(out_, "").ok()) << verify_module(out_, "").status().to_string();
    EXPECT_TRUE(fs::exists(out_ + "/README.md"));

    const auto at_load = load_module(from_, backbone(precision));
    ASSERT_TRUE(at_load.ok()) << at_load.status().to_string();
    const auto packed = load_module(out_, backbone(Precision::kBF16));
    ASSERT_TRUE(packed.ok()) << packed.status().to_string();
    EXPECT_EQ((*packed)->precision, precision);
    EXPECT_EQ(outputs_of(**packed), outputs_of(**at_load));
    EXPECT_EQ((*packed)->resident_bytes(), (*at_load)->resident_bytes());

    // In place: what it takes is its file.
    const uint64_t file = fs::file_size(out_ + "/weights.safetensors");
    const auto other = module_size(out_, *manifest, backbone(Precision::kBF16));
    EXPECT_EQ(other.status().code(), Code::kFailedPrecondition);  // from its header alone
    const auto size = module_size(out_, *manifest, backbone(precision));
    ASSERT_TRUE(size.ok());
    EXPECT_GE(size->resident, (*packed)->resident_bytes());
    EXPECT_LE(size->resident, file + 2 * 2 * kHidden * 4);
    ASSERT_EQ((*packed)->held.size(), 1u);
  }
}

TEST_F(Pack, ManyFilesHoldTheSameAsOneAndEachIsVerified) {
  write();
  const auto one = pack(Precision::kQ8);
  ASSERT_TRUE(one.ok()) << one.status().to_string();
  const std::string many = dir_ + "/many";
  const auto packed = pack_module({from_, many, Precision::kQ8, 8000});
  ASSERT_TRUE(packed.ok()) << packed.status().to_string();
  EXPECT_EQ(packed->bytes, one->bytes);
  const Manifest manifest = *read_manifest(many);
  ASSERT_GT(manifest.files.size(), 4u);
  EXPECT_THAT(manifest.files[0].path, HasSubstr("weights-00001-of-000"));
  EXPECT_EQ(manifest.files.back().path, "README.md");
  const auto loaded = load_module(many, backbone(Precision::kQ8));
  ASSERT_TRUE(loaded.ok()) << loaded.status().to_string();
  EXPECT_EQ(outputs_of(**loaded), outputs_of(**load_module(out_, backbone(Precision::kQ8))));

  // Of two that are not what the manifest says, the first is named.
  for (const size_t broken : {2, 1}) {
    std::fstream file(many + "/" + manifest.files[broken].path,
                      std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(-1, std::ios::end);
    file.put('\x55');
  }
  const auto refused = load_module(many, backbone(Precision::kQ8));
  EXPECT_EQ(refused.status().code(), Code::kDataCorrupt);
  EXPECT_THAT(refused.status().message(), HasSubstr(manifest.files[1].path));
}

TEST_F(Pack, FilesThatStayLeaveLessRoomForWeights) {
  write();
  for (int i = 0; i < 60; ++i) {
    const std::string name = fmt::format("notes-{}.md", i);
    std::ofstream(from_ + "/" + name) << name;
    manifest_.files.push_back({name, *sha256_of_file(from_ + "/" + name)});
  }
  std::ofstream(from_ + "/module.yaml") << manifest_yaml(manifest_);
  const auto packed = pack_module({from_, out_, Precision::kQ8, 4000});
  ASSERT_TRUE(packed.ok()) << packed.status().to_string();
  const auto manifest = read_manifest(out_);
  ASSERT_TRUE(manifest.ok()) << manifest.status().to_string();
  EXPECT_GT(manifest->files.size(), 62u);
  EXPECT_TRUE(load_module(out_, backbone(Precision::kQ8)).ok());
}

TEST_F(Pack, AnotherPrecisionIsRefusedByName) {
  write();
  ASSERT_TRUE(pack(Precision::kQ8).ok());
  for (const Precision asked : {Precision::kBF16, Precision::kQ4}) {
    const auto refused = load_module(out_, backbone(Precision::kQ8), {{}, asked});
    EXPECT_EQ(refused.status().code(), Code::kFailedPrecondition);
    EXPECT_THAT(refused.status().message(), HasSubstr("module legal"));
    EXPECT_THAT(refused.status().message(), HasSubstr("gate_proj.weight\" is packed as q8"));
  }
  // Packing what is packed changes nothing, and cannot make anything else of it.
  const auto again = pack_module({out_, dir_ + "/again", Precision::kQ8});
  ASSERT_TRUE(again.ok()) << again.status().to_string();
  EXPECT_EQ(*sha256_of_file(dir_ + "/again/weights.safetensors"),
            *sha256_of_file(out_ + "/weights.safetensors"));
  const auto other = pack_module({out_, dir_ + "/other", Precision::kQ4});
  EXPECT_EQ(other.status().code(), Code::kFailedPrecondition);
  EXPECT_FALSE(fs::exists(dir_ + "/other"));
}

TEST_F(Pack, WhatALoadWouldRefuseIsNotPacked) {
  write();
  EXPECT_EQ(pack(Precision::kBF16).status().code(), Code::kInvalidArgument);
  // A weight that is no number.
  const uint16_t nan = 0x7fc0;
  std::memcpy(const_cast<std::byte*>(tensors_[1].bytes.data()), &nan, sizeof(nan));
  write();
  const auto broken = pack(Precision::kQ8);
  EXPECT_EQ(broken.status().code(), Code::kDataCorrupt);
  EXPECT_FALSE(fs::exists(out_));
  // Other bytes than the manifest says.
  std::ofstream(from_ + "/README.md") << "changed\n";
  EXPECT_EQ(pack(Precision::kQ8).status().code(), Code::kDataCorrupt);
  manifest_.kind = ModuleKind::kLora;
  std::ofstream(from_ + "/module.yaml") << manifest_yaml(manifest_);
  const auto kind = pack(Precision::kQ8);
  EXPECT_EQ(kind.status().code(), Code::kFailedPrecondition);
  EXPECT_THAT(kind.status().message(), HasSubstr("module legal: found kind lora"));
}

TEST_F(Pack, AScaleThatIsNoNumberIsRefusedByALoad) {
  write();
  ASSERT_TRUE(pack(Precision::kQ8).ok());
  const std::string weights = out_ + "/weights.safetensors";
  std::string text;
  {
    const auto file = SafetensorsFile::open(weights, Residency::kCopied);
    ASSERT_TRUE(file.ok());
    const TensorView& first = file->tensors().front();
    uint64_t length = 0;
    std::ifstream in(weights, std::ios::binary);
    in.read(reinterpret_cast<char*>(&length), 8);
    in.seekg(0);
    text.assign(std::istreambuf_iterator<char>(in), {});
    EXPECT_TRUE(is_packed_type(first.dtype));
    text[8 + static_cast<size_t>(length) + 1] = 0x7c;  // the exponent of its first scale
  }
  std::ofstream(weights, std::ios::binary) << text;
  Manifest manifest = *read_manifest(out_);
  manifest.files[0].sha256 = *sha256_of_file(weights);
  std::ofstream(out_ + "/module.yaml") << manifest_yaml(manifest);
  const auto refused = load_module(out_, backbone(Precision::kQ8));
  EXPECT_EQ(refused.status().code(), Code::kDataCorrupt);
  EXPECT_THAT(refused.status().message(), HasSubstr("NaN or infinity"));
}

}  // namespace
}  // namespace chimera
