// Packed matrices in safetensors files: written and read to the bit, and refused by name when they
// are not what they say.
#include "backbone/checkpoint/packed_entry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

#include "backbone/checkpoint/safetensors.h"
#include "base/testing.h"
#include "compute/tensor/convert.h"
#include "compute/tensor/memory.h"
#include "compute/tensor/packed_tensor.h"

namespace chimera {
namespace {

using ::testing::HasSubstr;

class PackedEntry : public ::testing::Test {
 protected:
  PackedEntry() {
    std::string pattern = (std::filesystem::temp_directory_path() / "chimera-XXXXXX").string();
    dir_ = ::mkdtemp(pattern.data());
    path_ = dir_ + "/w.safetensors";
  }
  ~PackedEntry() override { std::filesystem::remove_all(dir_); }

  static TensorView random(const std::string& name, int64_t rows, int64_t cols) {
    std::byte* to = nullptr;
    TensorView t = make_tensor(name, DType::kF32, {rows, cols}, &to);
    std::mt19937 rng(static_cast<uint32_t>(rows));
    std::normal_distribution<float> normal(0.0f, 3e-4f);
    for (int64_t i = 0; i < rows * cols; ++i) {
      const float value = normal(rng);
      std::memcpy(to + 4 * i, &value, sizeof(value));
    }
    return t;
  }
  static TensorView packed(const std::string& name, int64_t rows, int64_t cols, Precision p) {
    return packed_tensor(name, *to_matrix(random(name, rows, cols), rows, cols, p));
  }
  std::string bytes() const {
    std::ostringstream text;
    text << std::ifstream(path_, std::ios::binary).rdbuf();
    return std::move(text).str();
  }
  /// The file with `from` in its header replaced by `to`, of the same length.
  Status read_changed(const std::string& from, const std::string& to) {
    std::string text = bytes();
    const size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    EXPECT_EQ(from.size(), to.size());
    text.replace(at, from.size(), to);
    return SafetensorsFile::parse(std::as_bytes(std::span(text)), "f").status();
  }

  std::string dir_, path_;
};

TEST_F(PackedEntry, IsReadBackToTheBitAndAligned) {
  std::vector<TensorView> tensors{packed("a", 37, 70, Precision::kQ8),
                                  packed("b", 16, 33, Precision::kQ4),
                                  packed("c", 5, 64, Precision::kQ8), random("gate", 3, 5)};
  ASSERT_TRUE(write_safetensors(path_, tensors, {{"format", "pt"}}).ok());
  for (const Residency residency : {Residency::kCopied, Residency::kMapped}) {
    const auto file = SafetensorsFile::open(path_, residency);
    ASSERT_TRUE(file.ok()) << file.status().to_string();
    for (const TensorView& t : tensors) {
      const TensorView* found = file->find(t.name);
      ASSERT_NE(found, nullptr);
      EXPECT_EQ(found->dtype, t.dtype);
      EXPECT_EQ(found->shape, t.shape);
      EXPECT_EQ(found->scale, t.scale);
      ASSERT_EQ(found->bytes.size(), t.bytes.size());
      EXPECT_EQ(std::memcmp(found->bytes.data(), t.bytes.data(), t.bytes.size()), 0);
      if (is_packed_type(t.dtype)) {
        EXPECT_EQ(reinterpret_cast<uintptr_t>(found->bytes.data()) % kPackedAlignment, 0u);
        const Precision p = t.name == "b" ? Precision::kQ4 : Precision::kQ8;
        EXPECT_EQ(to_matrix(*found, t.shape[0], t.shape[1], p)->data, found->bytes.data());
      }
    }
  }
  // What was read is written as the same file.
  const std::string first = bytes();
  const auto file = SafetensorsFile::open(path_, Residency::kCopied);
  ASSERT_TRUE(write_safetensors(path_, file->tensors(), {{"format", "pt"}}).ok());
  EXPECT_EQ(bytes(), first);
}

TEST_F(PackedEntry, WhatIsNotAsItSaysIsRefusedByName) {
  ASSERT_TRUE(write_safetensors(path_, {packed("a", 37, 70, Precision::kQ8)}, {}).ok());
  const Status layout = read_changed("\\\"layout\\\":1", "\\\"layout\\\":2");
  EXPECT_EQ(layout.code(), Code::kUnimplemented);
  EXPECT_THAT(layout.message(), HasSubstr("is packed in layout 2 (expected 1)"));
  EXPECT_THAT(layout.hint(), HasSubstr("Pack it again"));
  const struct {
    const char *from, *to, *why;
  } kBroken[] = {
      {"\\\"layout\\\":1", "\\\"layouts\\\"1", "the number of a layout"},
      {"\\\"layout\\\":1", "\\\"lajout\\\":1", "the number of a layout"},
      {"\\\"q8\\\"", "\\\"q9\\\"", "tensor \"a\": found"},
      {"\\\"q8\\\"", "\\\"q4\\\"", "U8 ["},
      {"[37,70]", "[37,7e]", "the number of a layout"},
      {"[37,70]", "[99,70]", "U8 ["},
      {"[37,70]", "[-7,70]", "(expected format, shape"},
      {"[37,70]", "[37070]", "(expected format, shape"},
      {"\\\"exponent\\\":-", "\\\"exponent\\\":9", "(expected format, shape"},
      {"\\\"exponent\\\"", "\\\"exponemt\\\"", "(expected format, shape"},
      {"{\\\"a\\\":", "{\\\"b\\\":", "found no tensor \"b\""},
      {"\\\"matrices\\\"", "\\\"matrixes\\\"", "expected layout and matrices"},
  };
  for (const auto& broken : kBroken) {
    const Status status = read_changed(broken.from, broken.to);
    EXPECT_EQ(status.code(), Code::kDataCorrupt) << broken.to << ": " << status.to_string();
    EXPECT_THAT(status.message(), HasSubstr("chimera.packed")) << broken.to;
    EXPECT_THAT(status.message(), HasSubstr(broken.why)) << broken.to;
  }
}

TEST_F(PackedEntry, AMatrixThatWouldHaveToBeCopiedIsRefusedByName) {
  // The header filled up with other blanks than the writer's: all data begin eight bytes later.
  ASSERT_TRUE(write_safetensors(path_, {packed("a", 37, 70, Precision::kQ8)}, {}).ok());
  std::string text = bytes();
  uint64_t length = 0;
  std::memcpy(&length, text.data(), sizeof(length));
  text.insert(8 + static_cast<size_t>(length), 8, ' ');
  length += 8;
  std::memcpy(text.data(), &length, sizeof(length));
  const auto refused = SafetensorsFile::parse(std::as_bytes(std::span(text)), "f");
  EXPECT_EQ(refused.status().code(), Code::kDataCorrupt);
  EXPECT_THAT(refused.status().message(), HasSubstr("tensor \"a\" begins at byte"));
  EXPECT_THAT(refused.status().message(), HasSubstr("(expected a multiple of 64)"));
  // Nor is one written so.
  const Status behind = write_safetensors(
      path_ + "2", {random("gate", 3, 5), packed("a", 37, 70, Precision::kQ8)}, {});
  EXPECT_EQ(behind.code(), Code::kInvalidArgument);
  EXPECT_THAT(behind.message(), HasSubstr("packed tensor \"a\" would begin at byte 60"));
  EXPECT_FALSE(std::filesystem::exists(path_ + "2"));
}

TEST_F(PackedEntry, AWriterIsToldOfBytesThatAreNoSuchMatrix) {
  TensorView t = packed("a", 37, 70, Precision::kQ8);
  t.bytes = t.bytes.first(t.bytes.size() - 1);
  const Status refused = write_safetensors(path_, {t}, {});
  EXPECT_EQ(refused.code(), Code::kInvalidArgument);
  EXPECT_THAT(refused.message(), HasSubstr("PACKED_Q8 [37, 70]"));
  EXPECT_FALSE(std::filesystem::exists(path_));
}

}  // namespace
}  // namespace chimera
