#include "base/io/memory_limit.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace chimera {
namespace {

constexpr uint64_t kMiB = 1u << 20;

class MemoryLimitTest : public testing::Test {
 protected:
  void SetUp() override {
    root_ = std::filesystem::temp_directory_path() / ("chimera_memory_" + std::to_string(getpid()));
    put("proc/meminfo", "MemTotal:  1048576 kB\nMemFree: 1 kB\nMemAvailable:   524288 kB\n");
    put("proc/self/cgroup", "0::/\n");
    std::filesystem::create_directories(root_ / "cgroup");
  }
  void TearDown() override { std::filesystem::remove_all(root_); }
  void put(const std::string& path, const std::string& text) {
    std::filesystem::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }
  MemoryFiles files() const { return {root_ / "proc", root_ / "cgroup"}; }

  std::filesystem::path root_;
};

TEST_F(MemoryLimitTest, WithoutGroupsItIsTheMachines) {
  const MemoryLimit limit = memory_limit(files());
  EXPECT_EQ(limit.bytes, 1024 * kMiB);
  EXPECT_EQ(limit.source, "physical memory");
  EXPECT_EQ(available_memory(files()), 512 * kMiB);
}

TEST_F(MemoryLimitTest, VersionTwoTakesTheTightestGroupAbove) {
  put("proc/self/cgroup", "0::/a/b\n");
  put("cgroup/a/memory.max", "419430400\n");
  put("cgroup/a/b/memory.max", "max\n");
  EXPECT_EQ(memory_limit(files()).bytes, 400 * kMiB);
  EXPECT_EQ(memory_limit(files()).source, "control group /a (memory.max)");
  put("cgroup/a/b/memory.max", "104857600\n");
  EXPECT_EQ(memory_limit(files()).bytes, 100 * kMiB);
  put("cgroup/a/b/memory.max", "99999999999999\n");
  put("cgroup/a/memory.max", "max\n");
  EXPECT_EQ(memory_limit(files()).bytes, 1024 * kMiB) << "more than the machine has";
}

TEST_F(MemoryLimitTest, InAContainerTheOwnFilesAreAtTheTop) {
  put("proc/self/cgroup", "0::/kubepods/pod1/c\n");
  put("cgroup/memory.max", "419430400\n");
  EXPECT_EQ(memory_limit(files()).bytes, 400 * kMiB);
  EXPECT_EQ(memory_limit(files()).source, "control group / (memory.max)");
}

TEST_F(MemoryLimitTest, VersionOne) {
  put("proc/self/cgroup", "5:cpu:/x\n4:memory:/docker/c\n0::/\n");
  put("cgroup/memory/docker/c/memory.limit_in_bytes", "209715200\n");
  EXPECT_EQ(memory_limit(files()).bytes, 200 * kMiB);
  put("cgroup/memory/docker/c/memory.limit_in_bytes", "9223372036854771712\n");
  EXPECT_EQ(memory_limit(files()).bytes, 1024 * kMiB) << "its word for no limit";
  put("cgroup/memory/memory.limit_in_bytes", "314572800\n");
  EXPECT_EQ(memory_limit(files()).bytes, 300 * kMiB);
}

TEST_F(MemoryLimitTest, AvailableIsWhatAGroupLeavesWithoutPagesThatCanBeDropped) {
  put("proc/self/cgroup", "0::/a\n");
  put("cgroup/a/memory.max", "419430400\n");
  put("cgroup/a/memory.current", "314572800\n");
  put("cgroup/a/memory.stat", "anon 1\ninactive_file 104857600\n");
  EXPECT_EQ(available_memory(files()), 200 * kMiB);
  put("cgroup/a/memory.current", "999999999999\n");
  EXPECT_EQ(available_memory(files()), 0u);
}

TEST_F(MemoryLimitTest, NothingToReadIsNoLimit) {
  std::filesystem::remove_all(root_ / "proc");
  EXPECT_EQ(memory_limit(files()).bytes, 0u);
  EXPECT_EQ(available_memory(files()), std::nullopt);
}

TEST(MemoryLimit, OfThisProcessIsSomething) { EXPECT_GT(memory_limit().bytes, 0u); }

}  // namespace
}  // namespace chimera
