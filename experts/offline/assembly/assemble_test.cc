// Whatever call to the system fails, an assembly leaves nothing; and the same bytes come out of
// every way to run it.
#include "experts/offline/assembly/assemble.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include "backbone/checkpoint/checkpoint.h"
#include "base/io/fault_env.h"

namespace chimera {
namespace {

namespace fs = std::filesystem;

constexpr const char* kGolden = CHIMERA_SOURCE_DIR "/tests/golden/families/mixtral_yarn";

std::string read_text(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

std::map<std::string, std::string> files_of(const std::string& dir) {
  std::map<std::string, std::string> out;
  for (const auto& file : fs::directory_iterator(dir)) {
    out[file.path().filename()] = read_text(file.path());
  }
  return out;
}

class Assemble : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "chimera-XXXXXX").string();
    dir_ = ::mkdtemp(pattern.data());
    fs::copy(kGolden, dir_ + "/a");
    fs::copy(kGolden, dir_ + "/b");
    change(dir_ + "/b");
  }
  void TearDown() override { fs::remove_all(dir_); }

  /// Every number loses or gains its last bit.
  static void change(const std::string& checkpoint) {
    const auto opened = Checkpoint::open(checkpoint, Residency::kCopied);
    ASSERT_TRUE(opened.ok()) << opened.status().to_string();
    for (const auto& file : opened->files()) {
      std::vector<TensorView> tensors(file->tensors().begin(), file->tensors().end());
      std::vector<std::string> bytes;
      bytes.reserve(tensors.size());
      for (TensorView& tensor : tensors) {
        std::string& data = bytes.emplace_back(reinterpret_cast<const char*>(tensor.bytes.data()),
                                               tensor.bytes.size());
        const size_t unit = tensor.dtype == DType::kF32 ? 4 : 2;
        for (size_t i = 0; i < data.size(); i += unit) data[i] = static_cast<char>(data[i] ^ 1);
        tensor.bytes = std::as_bytes(std::span(data));
      }
      ASSERT_TRUE(write_safetensors(file->path(), tensors, {}).ok());
    }
  }

  AssemblyPlan plan(const std::string& rest) const {
    auto recipe = parse_recipe(
        "{chimera: assembly/1, base: a, parents: [{path: b, lambda: 0.5}], " + rest + "}", "recipe",
        dir_);
    EXPECT_TRUE(recipe.ok()) << recipe.status().to_string();
    auto planned = plan_assembly(std::move(*recipe), kShardBytes);
    EXPECT_TRUE(planned.ok()) << planned.status().to_string();
    return std::move(*planned);
  }

  AssembleOptions options() const {
    AssembleOptions out;
    out.out_dir = dir_ + "/new/out";
    return out;
  }

  static constexpr uint64_t kShardBytes = 30'000;  // several shards
  std::string dir_;
};

TEST_F(Assemble, LeavesNothingWhereACallFails) {
  const AssemblyPlan whole = plan("rules: [{tensors: all}]");
  ASSERT_GT(whole.shards.size(), 1u);
  for (const auto call :
       {FaultEnv::kOpen, FaultEnv::kWrite, FaultEnv::kFsync, FaultEnv::kClose, FaultEnv::kRename}) {
    int failures = 0;
    for (int n = 1;; n = n < 40 ? n + 1 : n + 17) {
      SCOPED_TRACE(std::string(FaultEnv::kNames[call]) + " " + std::to_string(n));
      FaultEnv env;
      env.fail_nth(call, n, ENOSPC);
      AssembleOptions fails = options();
      fails.env = &env;
      const auto done = assemble(whole, fails);
      EXPECT_EQ(env.open_fds(), 0);
      if (!env.fired()) {
        EXPECT_TRUE(done.ok()) << done.status().to_string();
        fs::remove_all(dir_ + "/new");
        break;
      }
      ++failures;
      // Once it has its name the output is complete, and only told not to be safe on disk yet.
      const bool complete = fs::exists(fails.out_dir);
      if (!complete) {
        ASSERT_FALSE(done.ok());
        EXPECT_EQ(done.status().code(), Code::kResourceExhausted) << done.status().to_string();
        ASSERT_FALSE(fs::exists(dir_ + "/new"));
      }
      fs::remove_all(dir_ + "/new");
    }
    EXPECT_GT(failures, 0);
  }
}

TEST_F(Assemble, ShortWritesAndThreadsChangeNothing) {
  const AssemblyPlan whole = plan("rules: [{tensors: all, method: ties, density: 0.5}]");
  ASSERT_TRUE(assemble(whole, options()).ok());
  const auto want = files_of(options().out_dir);
  fs::remove_all(dir_ + "/new");
  FaultEnv env;
  env.limit_io(1000);
  AssembleOptions slow = options();
  slow.env = &env;
  ASSERT_TRUE(assemble(whole, slow).ok());
  EXPECT_EQ(files_of(slow.out_dir), want);
  fs::remove_all(dir_ + "/new");
  AssembleOptions many = options();
  many.threads = 3;
  ASSERT_TRUE(assemble(whole, many).ok());
  EXPECT_EQ(files_of(many.out_dir), want);
}

TEST_F(Assemble, RefusesWhatIsThereAlready) {
  const AssemblyPlan whole = plan("rules: [{tensors: all}]");
  fs::create_directories(dir_ + "/new/out");
  EXPECT_EQ(assemble(whole, options()).status().code(), Code::kAlreadyExists);
  EXPECT_TRUE(fs::is_empty(dir_ + "/new/out"));
}

/// Threads beyond what the memory has room for are not started; the bytes are the same.
TEST_F(Assemble, MoreThreadsThanTheMemoryHasRoomFor) {
  const AssemblyPlan whole = plan("rules: [{tensors: all}]");
  ASSERT_TRUE(assemble(whole, options()).ok());
  const auto want = files_of(options().out_dir);
  fs::remove_all(dir_ + "/new");
  AssembleOptions many = options();
  many.memory = kLeastAssemblyMemory;
  many.threads = 500;
  ASSERT_TRUE(assemble(whole, many).ok());
  EXPECT_EQ(files_of(many.out_dir), want);
}

TEST_F(Assemble, RefusesTooLittleMemory) {
  AssembleOptions little = options();
  little.memory = kLeastAssemblyMemory - 1;
  EXPECT_EQ(assemble(plan("rules: [{tensors: all}]"), little).status().code(),
            Code::kInvalidArgument);
  EXPECT_FALSE(fs::exists(dir_ + "/new"));
}

}  // namespace
}  // namespace chimera
