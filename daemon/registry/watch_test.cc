#include "daemon/registry/watch.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

namespace chimera {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

// Remembers what the watcher wanted, and checks at that moment that the directory is complete.
class WatchTest : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = (fs::temp_directory_path() / "chimera-watch-XXXXXX").string();
    ASSERT_NE(mkdtemp(root_.data()), nullptr);
    dir_ = root_ + "/modules";
    fs::create_directory(dir_);
  }
  void TearDown() override {
    watcher_.reset();
    fs::remove_all(root_);
  }
  void start() {
    auto watcher = Watcher::start({dir_}, {[this](const std::string& d, LoadSource source) {
                                             return did(source == LoadSource::kScan ? "=" : "+", d);
                                           },
                                           [this](const std::string& d) { return did("-", d); }});
    ASSERT_TRUE(watcher.ok()) << watcher.status().to_string();
    watcher_ = std::move(*watcher);
  }
  Status did(const std::string& what, const std::string& dir) {
    const MutexLock guard(mutex_);
    if (what == "+" && !fs::exists(dir + "/complete")) ++half_copied_;
    actions_.push_back(what + fs::path(dir).filename().string());
    changed_.notify_all();
    return fail_ ? Status(Code::kInvalidArgument, "refused") : Status();
  }
  /// The actions after at least `n` of them, and after a while in which more could come.
  std::vector<std::string> actions(size_t n) {
    ReleasableMutexLock lock(mutex_);
    changed_.wait_for(mutex_, std::chrono::seconds(60),
                      [&]() REQUIRES(mutex_) { return actions_.size() >= n; });
    lock.unlock();
    std::this_thread::sleep_for(std::chrono::milliseconds(150));
    lock.lock();
    return actions_;
  }
  int half_copied() {
    const MutexLock guard(mutex_);
    return half_copied_;
  }
  /// Every action from now on is refused.
  void refuse() {
    const MutexLock guard(mutex_);
    fail_ = true;
  }
  static void fill(const std::string& dir) {
    fs::create_directories(dir);
    std::ofstream(dir + "/module.yaml") << "name: x\n";
    std::ofstream(dir + "/complete") << "payload";
  }
  /// A module that appears the right way.
  void drop(const std::string& name) {
    fill(root_ + "/build");
    fs::rename(root_ + "/build", dir_ + "/" + name);
  }

  std::string root_, dir_;
  std::unique_ptr<Watcher> watcher_;
  Mutex mutex_;
  CondVar changed_;
  std::vector<std::string> actions_ GUARDED_BY(mutex_);
  int half_copied_ GUARDED_BY(mutex_) = 0;
  bool fail_ GUARDED_BY(mutex_) = false;
};

TEST_F(WatchTest, WhatIsThereAtTheStartIsLoadedInOrder) {
  fill(dir_ + "/legal");
  fill(dir_ + "/bio");
  fill(dir_ + "/.hidden");
  fill(dir_ + "/half.tmp");
  fill(dir_ + "/other.part");
  fs::create_directory(dir_ + "/empty");
  std::ofstream(dir_ + "/file") << "no directory";
  start();
  EXPECT_THAT(actions(2), ElementsAre("=bio", "=legal"));
}

TEST_F(WatchTest, RenameInLoadsRenameOutRetires) {
  start();
  drop("legal");
  EXPECT_THAT(actions(1), ElementsAre("+legal"));
  fs::rename(dir_ + "/legal", root_ + "/away");
  EXPECT_THAT(actions(2), ElementsAre("+legal", "-legal"));
  fs::rename(root_ + "/away", dir_ + "/legal");
  EXPECT_THAT(actions(3), ElementsAre("+legal", "-legal", "+legal"));
  fs::remove_all(dir_ + "/legal");
  EXPECT_THAT(actions(4), ElementsAre("+legal", "-legal", "+legal", "-legal"));
}

TEST_F(WatchTest, DirectoryFilledInPlaceWaitsForItsManifest) {
  start();
  const std::string dir = dir_ + "/legal";
  fs::create_directory(dir);
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  std::ofstream(dir + "/module.yaml.new") << "name: x\n";
  std::ofstream(dir + "/complete") << "payload";
  EXPECT_THAT(actions(0), IsEmpty());
  fs::rename(dir + "/module.yaml.new", dir + "/module.yaml");
  EXPECT_THAT(actions(1), ElementsAre("+legal"));
  // A new version, manifest last.
  std::ofstream(dir + "/next") << "name: x\n";
  fs::rename(dir + "/next", dir + "/module.yaml");
  EXPECT_THAT(actions(2), ElementsAre("+legal", "+legal"));
}

TEST_F(WatchTest, HalfCopiedDirectoryIsNeverSeen) {
  start();
  for (int round = 0; round < 20; ++round) {
    // An installer that writes in place, manifest first, and is killed somewhere.
    const std::string dir = dir_ + "/legal" + std::to_string(round);
    fs::create_directory(dir);
    if (round % 3 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    std::ofstream(dir + "/module.yaml") << "name: x\n";
    if (round % 2 == 0) std::ofstream(dir + "/weights.safetensors") << "half";
  }
  EXPECT_THAT(actions(0), IsEmpty());
  drop("good");
  EXPECT_THAT(actions(1), ElementsAre("+good"));
  EXPECT_EQ(half_copied(), 0);
}

TEST_F(WatchTest, TheHalfCopiedCheckCanFail) {
  EXPECT_EQ(half_copied(), 0);
  fs::create_directory(root_ + "/half");
  std::ofstream(root_ + "/half/module.yaml") << "name: x\n";
  start();
  fs::rename(root_ + "/half", dir_ + "/half");  // renamed in although incomplete
  actions(1);
  EXPECT_EQ(half_copied(), 1);
}

TEST_F(WatchTest, IgnoredNames) {
  start();
  drop(".hidden");
  drop("legal.tmp");
  drop("legal.part");
  EXPECT_THAT(actions(0), IsEmpty());
  fs::rename(dir_ + "/legal.tmp", dir_ + "/legal");  // the usual last step
  EXPECT_THAT(actions(1), ElementsAre("+legal"));
}

TEST_F(WatchTest, SwapByRename) {
  start();
  drop("legal");
  actions(1);
  fs::rename(dir_ + "/legal", dir_ + "/.old");
  drop("legal");
  auto done = actions(2);
  // Retired in between or replaced, loaded at the end.
  if (done.back() == "-legal") done = actions(3);
  EXPECT_GE(done.size(), 2u);
  EXPECT_EQ(done.back(), "+legal");
}

TEST_F(WatchTest, FailureIsNotRepeated) {
  refuse();
  start();
  drop("bad");
  EXPECT_THAT(actions(1), ElementsAre("+bad"));
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  EXPECT_THAT(actions(1), ElementsAre("+bad"));
}

TEST_F(WatchTest, WhatWasNeverLoadedIsNotRetired) {
  start();
  fs::create_directory(dir_ + "/empty");
  fs::remove_all(dir_ + "/empty");
  EXPECT_THAT(actions(0), IsEmpty());
}

TEST_F(WatchTest, MissingDirectoryIsNamed) {
  const auto watcher = Watcher::start({dir_ + "/nowhere"}, {});
  EXPECT_EQ(watcher.status().code(), Code::kNotFound);
  EXPECT_NE(watcher.status().message().find("/nowhere"), std::string::npos);
}

TEST_F(WatchTest, StopsWhileBusy) {
  start();
  for (int i = 0; i < 50; ++i) drop("m" + std::to_string(i));
  watcher_.reset();
}

// --- another list of directories
// ------------------------------------------------------------------

TEST_F(WatchTest, WatchingAgainLooksAtEverythingOnceMore) {
  start();
  drop("legal");
  actions(1);
  fail_ = true;  // what could not be loaded gets another try
  ASSERT_TRUE(watcher_->watch({dir_}).ok());
  EXPECT_THAT(actions(2), ElementsAre("+legal", "=legal"));
  drop("bio");
  EXPECT_THAT(actions(3), ElementsAre("+legal", "=legal", "+bio"));
}

TEST_F(WatchTest, ADirectoryThatWasAwayIsWatchedAgain) {
  start();
  fs::remove_all(dir_);
  actions(0);
  EXPECT_EQ(watcher_->watch({dir_}).code(), Code::kNotFound);
  fs::create_directory(dir_);
  fill(dir_ + "/bio");
  ASSERT_TRUE(watcher_->watch({dir_}).ok());
  EXPECT_THAT(actions(1), ElementsAre("=bio"));
  drop("legal");
  EXPECT_THAT(actions(2), ElementsAre("=bio", "+legal"));
}

TEST_F(WatchTest, ModulesOfADirectoryThatIsNoLongerWatchedStay) {
  const std::string other = root_ + "/other";
  fs::create_directory(other);
  fill(other + "/bio");
  start();
  drop("legal");
  actions(1);
  ASSERT_TRUE(watcher_->watch({other}).ok());
  EXPECT_THAT(actions(2), ElementsAre("+legal", "=bio"));
  fs::rename(dir_ + "/legal", root_ + "/away");
  drop("finance");
  fs::rename(other + "/bio", root_ + "/gone");
  EXPECT_THAT(actions(3), ElementsAre("+legal", "=bio", "-bio"));
}

TEST_F(WatchTest, AListThatCannotBeWatchedChangesNothing) {
  const std::string other = root_ + "/other";
  fs::create_directory(other);
  start();
  const Status status = watcher_->watch({other, root_ + "/nowhere"});
  EXPECT_EQ(status.code(), Code::kNotFound);
  EXPECT_THAT(status.message(), ::testing::HasSubstr("/nowhere"));
  drop("legal");
  EXPECT_THAT(actions(1), ElementsAre("+legal"));
  fill(root_ + "/build");
  fs::rename(root_ + "/build", other + "/bio");
  EXPECT_THAT(actions(1), ElementsAre("+legal"));
}

}  // namespace
}  // namespace chimera
