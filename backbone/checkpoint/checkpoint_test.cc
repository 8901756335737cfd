// Checkpoint directories: the golden ones, and ones whose files do not belong together.
#include "backbone/checkpoint/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/io/fault_env.h"
#include "base/json/testing.h"
#include "base/json/writer.h"

namespace chimera {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

const std::string kGolden = CHIMERA_SOURCE_DIR "/../shared/golden/open/models/";

/// Names, shapes and dtypes of a directory by a second route: the raw headers as JSON.
Json raw_headers(const std::string& dir) {
  Json all = Json::object();
  for (const auto& entry : fs::directory_iterator(dir)) {
    const std::string name = entry.path().filename();
    if (!name.starts_with("model") || !name.ends_with(".safetensors")) continue;
    std::ifstream in(entry.path(), std::ios::binary);
    uint64_t length = 0;
    in.read(reinterpret_cast<char*>(&length), 8);
    std::string text(length, '\0');
    in.read(text.data(), static_cast<std::streamsize>(length));
    auto header = json_of(text);
    header.erase("__metadata__");
    all.update(header);
  }
  return all;
}

TEST(GoldenCheckpointTest, EveryDirectoryOpens) {
  if (!fs::exists(kGolden)) GTEST_SKIP() << kGolden << " is absent";
  size_t opened = 0;
  for (const auto& entry : fs::directory_iterator(kGolden)) {
    const std::string dir = entry.path();
    SCOPED_TRACE(dir);
    const auto expected = raw_headers(dir);
    for (const Residency residency : {Residency::kCopied, Residency::kMapped}) {
      const auto checkpoint = Checkpoint::open(dir, residency);
      ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().to_string();
      EXPECT_EQ(checkpoint->has_tokenizer(), fs::exists(dir + "/tokenizer.json"));
      EXPECT_TRUE(json_of(checkpoint->config_json()).contains("model_type"));
      std::vector<std::string> names;
      for (const auto& [name, header] : expected.items()) {
        names.push_back(name);
        const TensorView* t = checkpoint->find(name);
        ASSERT_NE(t, nullptr) << name;
        EXPECT_EQ(header["dtype"], dtype_name(t->dtype));
        EXPECT_EQ(header["shape"], t->shape);
      }
      std::sort(names.begin(), names.end());
      EXPECT_EQ(checkpoint->names(), names);  // both sorted
    }
    ++opened;
  }
  EXPECT_GE(opened, 8u);
}

TEST(GoldenCheckpointTest, ShardedEqualsItsShards) {
  const std::string dir = kGolden + "flex_olmo_bf16";
  if (!fs::exists(dir)) GTEST_SKIP() << dir << " is absent";
  const auto checkpoint = Checkpoint::open(dir, Residency::kCopied);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().to_string();
  EXPECT_EQ(checkpoint->files().size(), 3u);
  uint64_t bytes = 0;
  for (int i = 1; i <= 3; ++i) {
    bytes += fs::file_size(dir + "/model-0000" + std::to_string(i) + "-of-00003.safetensors");
  }
  EXPECT_EQ(checkpoint->file_bytes(), bytes);
}

/// A checkpoint of two shards, made to be broken.
class CheckpointTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "checkpoint_test_XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
    put("config.json", R"({"model_type":"olmoe"})");
    write("model-1.safetensors", {"a", "b"});
    write("model-2.safetensors", {"c"});
    index(
        {{"a", "model-1.safetensors"}, {"b", "model-1.safetensors"}, {"c", "model-2.safetensors"}});
  }
  void TearDown() override { fs::remove_all(dir_); }

  void put(const std::string& name, const std::string& text) const {
    std::ofstream(dir_ + "/" + name, std::ios::binary) << text;
  }
  void index(const Json& map) const {
    put(kIndex, write_json({{"metadata", {{"total_size", 1.5e1}}}, {"weight_map", map}}));
  }
  /// F32 tensors of shape [2, 2], all elements the code of the name's first letter.
  void write(const std::string& file, const std::vector<std::string>& names) const {
    std::vector<TensorView> tensors;
    std::vector<std::vector<float>> values;
    for (const std::string& name : names) {
      values.emplace_back(4, static_cast<float>(name[0]));
      tensors.push_back({name, DType::kF32, {2, 2}, std::as_bytes(std::span(values.back())), {}});
    }
    ASSERT_TRUE(write_safetensors(dir_ + "/" + file, tensors, {}).ok());
  }
  Status open() const { return Checkpoint::open(dir_, Residency::kCopied).status(); }
  void expect_corrupt(const std::string& file, const std::string& message) const {
    const Status s = open();
    EXPECT_EQ(s.code(), Code::kDataCorrupt) << s.to_string();
    EXPECT_THAT(s.message(), HasSubstr(dir_ + "/" + file));
    EXPECT_THAT(s.message(), HasSubstr(message));
  }

  static constexpr const char* kIndex = "model.safetensors.index.json";
  std::string dir_;
};

TEST_F(CheckpointTest, OpensShards) {
  const auto checkpoint = Checkpoint::open(dir_, Residency::kCopied);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().to_string();
  EXPECT_EQ(checkpoint->names(), (std::vector<std::string>{"a", "b", "c"}));
  const auto c = checkpoint->matrix("c", 2, 2, Precision::kF32);
  ASSERT_TRUE(c.ok());
  EXPECT_EQ(static_cast<const float*>(c->data)[3], 99.0f);
}

TEST_F(CheckpointTest, SingleFileWins) {
  write("model.safetensors", {"x"});
  const auto checkpoint = Checkpoint::open(dir_, Residency::kCopied);
  ASSERT_TRUE(checkpoint.ok());
  EXPECT_EQ(checkpoint->names(), std::vector<std::string>{"x"});
}

TEST_F(CheckpointTest, FilesThatDoNotBelongTogether) {
  const std::string one = "model-1.safetensors", two = "model-2.safetensors";
  index({{"a", one}, {"b", one}, {"c", two}, {"d", two}});
  expect_corrupt(two, "lacks tensor \"d\"");
  index({{"a", one}, {"c", two}});
  expect_corrupt(one, "\"b\", which the index does not list");
  index({{"a", one}, {"b", two}, {"c", two}});
  expect_corrupt(one, "\"b\", which the index says is in \"model-2.safetensors\"");
  index({{"a", one}, {"b", one}, {"c", two}});
  write(two, {"c", "a"});
  expect_corrupt(two, "\"a\", which the index says is in \"model-1.safetensors\"");
}

TEST_F(CheckpointTest, BrokenShards) {
  fs::remove(dir_ + "/model-2.safetensors");
  Status s = open();
  EXPECT_EQ(s.code(), Code::kNotFound);
  EXPECT_THAT(s.message(), HasSubstr("model-2.safetensors"));
  put("model-2.safetensors", "\x02");
  s = open();
  EXPECT_EQ(s.code(), Code::kDataCorrupt);
  EXPECT_THAT(s.message(), HasSubstr("model-2.safetensors"));
}

TEST_F(CheckpointTest, BadIndexes) {
  const std::pair<std::string, std::string> cases[] = {
      {"", "JSON: the text ends early"},
      {"{", "JSON: the text ends early"},
      {"{} {}", "JSON: syntax error"},
      {"\xff", "JSON: invalid UTF-8"},
      {R"({"metadata":1e999,"weight_map":{"a":"m.safetensors"}})", "JSON: number out of range"},
      {"[]", "expected an object"},
      {"1", "expected an object"},
      {"\"x\"", "expected an object"},
      {"null", "expected an object"},
      {"{}", "lacks \"weight_map\""},
      {R"({"metadata":{"weight_map":{"a":"m.safetensors"}}})", "lacks \"weight_map\""},
      {R"([{"weight_map":{}}])", "expected an object"},
      {R"({"weight_map":{}})", "is empty"},
      {R"({"weight_map":[]})", "weight_map is an array"},
      {R"({"weight_map":null})", "weight_map is null"},
      {R"({"weight_map":"m.safetensors"})", "weight_map is a string"},
      {R"({"weight_map":{"a":1}})", "found a number, expected a file name"},
      {R"({"weight_map":{"a":true}})", "found a boolean"},
      {R"({"weight_map":{"a":["m.safetensors"]}})", "found an array"},
      {R"({"weight_map":{"a":{}}})", "found an object"},
      {R"({"weight_map":{"a":"m.safetensors","a":"m.safetensors"}})", "duplicate key \"a\""},
      {R"({"weight_map":{"a":"m.safetensors"},"weight_map":{"a":"m.safetensors"}})",
       "duplicate key \"weight_map\""},
      {R"({"weight_map":{"a":""}})", "plain file name"},
      {R"({"weight_map":{"a":".safetensors"}})", "plain file name"},
      {R"({"weight_map":{"a":"../m.safetensors"}})", "plain file name"},
      {R"({"weight_map":{"a":"/etc/m.safetensors"}})", "plain file name"},
      {R"({"weight_map":{"a":"sub/m.safetensors"}})", "plain file name"},
      {R"({"weight_map":{"a":"..safetensors"}})", "plain file name"},
      {R"({"weight_map":{"a":"m\u0000.safetensors"}})", "plain file name"},
      {R"({"weight_map":{"a":"model.bin"}})", "plain file name"},
      {"{\"weight_map\":{\"a\":\"" + std::string(300, 'm') + ".safetensors\"}}", "plain file name"},
      {"{\"metadata\":" + std::string(200'000, '['), "JSON: nested deeper"}};
  for (const auto& [text, message] : cases) {
    SCOPED_TRACE(text.substr(0, 80));
    put(kIndex, text);
    expect_corrupt(kIndex, message);
  }
}

TEST_F(CheckpointTest, MissingParts) {
  fs::remove(dir_ + "/" + kIndex);
  Status s = open();
  EXPECT_EQ(s.code(), Code::kNotFound);
  EXPECT_THAT(s.message(), HasSubstr("neither model.safetensors nor"));
  EXPECT_FALSE(s.hint().empty());
  fs::remove(dir_ + "/config.json");
  s = open();
  EXPECT_EQ(s.code(), Code::kNotFound);
  EXPECT_THAT(s.message(), HasSubstr("config.json"));
  put("config.json", std::string((1u << 20) + 1, ' '));
  EXPECT_EQ(open().code(), Code::kInvalidArgument);
}

TEST_F(CheckpointTest, RequireNamesTensorFoundAndExpected) {
  const auto checkpoint = Checkpoint::open(dir_, Residency::kCopied);
  ASSERT_TRUE(checkpoint.ok());
  const auto absent = checkpoint->matrix("q.weight", 2, 2, Precision::kF32);
  EXPECT_EQ(absent.status().code(), Code::kNotFound);
  EXPECT_THAT(absent.status().message(), HasSubstr("\"q.weight\""));
  const auto wrong = checkpoint->matrix("a", 2, 3, Precision::kF32);
  EXPECT_EQ(wrong.status().code(), Code::kDataCorrupt);
  EXPECT_THAT(wrong.status().message(), HasSubstr("has shape [2, 2], expected [2, 3]"));
  EXPECT_EQ(checkpoint->vector("a", 4).status().code(), Code::kDataCorrupt);
}

TEST_F(CheckpointTest, EveryFailingCallIsReported) {
  for (const auto call : {FaultEnv::kOpen, FaultEnv::kRead}) {
    for (const int error : {EIO, EMFILE}) {
      int n = 1;
      for (;; ++n) {
        FaultEnv env;
        env.fail_nth(call, n, error);
        const auto checkpoint = Checkpoint::open(dir_, Residency::kCopied, env);
        EXPECT_EQ(env.open_fds(), 0);
        EXPECT_EQ(checkpoint.ok(), !env.fired());
        if (!env.fired()) break;
        EXPECT_THAT(checkpoint.status().message(), HasSubstr(dir_));
      }
      EXPECT_GT(n, 4);  // config, index and two shards
    }
  }
}

}  // namespace
}  // namespace chimera
