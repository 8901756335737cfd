// Writer: what it writes is read back, and a failure leaves the old file.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <sstream>

#include "backbone/checkpoint/safetensors.h"
#include "backbone/checkpoint/safetensors_image.h"
#include "base/io/fault_env.h"
#include "base/json/testing.h"

namespace chimera {
namespace {

using testing::HasSubstr;

TensorView view(std::string name, DType dtype, std::vector<int64_t> shape, std::string_view data) {
  return {std::move(name), dtype, std::move(shape), std::as_bytes(std::span(data)), nullptr};
}

class WriteTest : public SafetensorsTest {
 protected:
  std::string contents() const {
    std::stringstream text;
    text << std::ifstream(path_, std::ios::binary).rdbuf();
    return text.str();
  }
  size_t entries() const {
    return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(dir_), {}));
  }

  const std::vector<TensorView> tensors_ = {view("z.weight", DType::kF32, {2, 1}, "abcdefgh"),
                                            view("empty", DType::kI64, {0, 7}, ""),
                                            view("\xc3\xa4 \"quoted\"\n", DType::kU8, {3}, "xyz"),
                                            view("scalar", DType::kBF16, {}, "01")};
};

TEST_F(WriteTest, ReadsBack) {
  const std::map<std::string, std::string> metadata = {{"format", "pt"}, {"k\n", "\xe4\xb8\xad"}};
  ASSERT_TRUE(write_safetensors(path_, tensors_, metadata).ok());
  const auto file = SafetensorsFile::open(path_, Residency::kCopied);
  ASSERT_TRUE(file.ok()) << file.status().to_string();
  EXPECT_EQ(file->metadata(), metadata);
  ASSERT_EQ(file->tensors().size(), tensors_.size());
  for (const TensorView& expected : tensors_) {
    const TensorView* found = file->find(expected.name);
    ASSERT_NE(found, nullptr);
    EXPECT_EQ(found->dtype, expected.dtype);
    EXPECT_EQ(found->shape, expected.shape);
    EXPECT_TRUE(std::equal(found->bytes.begin(), found->bytes.end(), expected.bytes.begin(),
                           expected.bytes.end()));
  }
  EXPECT_EQ(file->tensors()[0].name, "z.weight");  // data in the given order
}

// Independent of the reader: the format by hand.
TEST_F(WriteTest, LayoutIsTheFormat) {
  ASSERT_TRUE(write_safetensors(path_, tensors_, {}).ok());
  const std::string bytes = contents();
  uint64_t length = 0;
  ASSERT_GE(bytes.size(), 8u);
  std::memcpy(&length, bytes.data(), 8);
  EXPECT_EQ(length % 8, 0u);
  const auto header = json_of(bytes.substr(8, length));
  EXPECT_EQ(header.size(), tensors_.size());
  EXPECT_EQ(header["z.weight"]["dtype"], "F32");
  EXPECT_EQ(header["z.weight"]["shape"], (std::vector<int>{2, 1}));
  EXPECT_EQ(header["z.weight"]["data_offsets"], (std::vector<int>{0, 8}));
  EXPECT_EQ(header["scalar"]["data_offsets"], (std::vector<int>{11, 13}));
  EXPECT_EQ(bytes.substr(8 + length), "abcdefghxyz01");
}

TEST_F(WriteTest, NoTensors) {
  ASSERT_TRUE(write_safetensors(path_, {}, {}).ok());
  const auto file = SafetensorsFile::open(path_, Residency::kMapped);
  ASSERT_TRUE(file.ok()) << file.status().to_string();
  EXPECT_TRUE(file->tensors().empty());
}

TEST_F(WriteTest, RefusesWhatCouldNotBeRead) {
  const std::vector<TensorView> bad[] = {
      {view("a", DType::kU8, {1}, "x"), view("a", DType::kU8, {1}, "x")},
      {view("__metadata__", DType::kU8, {1}, "x")},
      {view(std::string("a\0b", 3), DType::kU8, {1}, "x")},
      {view("\xff", DType::kU8, {1}, "x")},
      {view("a", DType::kF32, {1}, "x")},
      {view("a", DType::kU8, {-1}, "")},
      {view("a", DType::kU8, {1, 1, 1, 1, 1, 1, 1, 1, 1}, "x")},
      {view("a", DType::kU8, {int64_t{1} << 32, int64_t{1} << 32}, "")}};
  for (const auto& tensors : bad) {
    const Status s = write_safetensors(path_, tensors, {});
    EXPECT_EQ(s.code(), Code::kInvalidArgument);
    EXPECT_THAT(s.message(), HasSubstr(path_));
    EXPECT_EQ(entries(), 0u);
  }
  EXPECT_EQ(write_safetensors(path_, {}, {{"k", "\xff"}}).code(), Code::kInvalidArgument);
}

TEST_F(WriteTest, EveryFailingCallLeavesOldOrNewFile) {
  for (int call = 0; call < FaultEnv::kCalls; ++call) {
    for (int n = 1;; ++n) {
      put("old");
      FaultEnv env;
      env.limit_io(64);
      env.fail_nth(static_cast<FaultEnv::Call>(call), n, ENOSPC);
      const Status s = write_safetensors(path_, tensors_, {}, env);
      SCOPED_TRACE(testing::Message() << FaultEnv::kNames[static_cast<size_t>(call)] << " #" << n);
      EXPECT_EQ(env.open_fds(), 0);
      EXPECT_EQ(entries(), 1u);
      const bool renamed =
          env.calls(FaultEnv::kRename) > 0 && !(call == FaultEnv::kRename && env.fired());
      if (renamed) {
        EXPECT_TRUE(SafetensorsFile::open(path_, Residency::kCopied).ok());
      } else {
        EXPECT_EQ(contents(), "old");
        EXPECT_EQ(s.code(), Code::kResourceExhausted);
      }
      if (!env.fired()) {
        EXPECT_TRUE(s.ok());
        break;
      }
    }
  }
}

}  // namespace
}  // namespace chimera
