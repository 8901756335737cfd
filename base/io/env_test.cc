#include "base/io/env.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "base/io/fault_env.h"

namespace chimera {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class EnvTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "env_test_XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
    file_ = dir_ + "/state";
  }
  void TearDown() override { fs::remove_all(dir_); }

  static void put(const std::string& path, std::string_view text) {
    std::ofstream(path, std::ios::binary) << text;
  }
  static std::string get(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  }
  size_t entries() const {
    return static_cast<size_t>(std::distance(fs::directory_iterator(dir_), {}));
  }

  std::string dir_;
  std::string file_;
};

TEST_F(EnvTest, ReadsWholeFileUpToTheLimit) {
  const std::string text(10'000, 'x');
  put(file_, text);
  FaultEnv env;
  env.limit_io(37);
  const auto all = read_file(env, file_, text.size());
  ASSERT_TRUE(all.ok()) << all.status().to_string();
  EXPECT_EQ(*all, text);
  const auto refused = read_file(env, file_, text.size() - 1);
  EXPECT_EQ(refused.status().code(), Code::kInvalidArgument);
  EXPECT_THAT(refused.status().message(), HasSubstr("10000"));
  EXPECT_EQ(env.open_fds(), 0);
}

TEST_F(EnvTest, ReadsFilesWhoseSizeIsNotKnownBefore) {
  const auto text = read_file(Env::system(), "/proc/self/status", 1u << 20);
  ASSERT_TRUE(text.ok()) << text.status().to_string();
  EXPECT_THAT(*text, HasSubstr("VmRSS"));
}

TEST_F(EnvTest, RefusesWhatIsNoRegularFileWithoutBlocking) {
  const std::string fifo = dir_ + "/fifo";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  const std::pair<std::string, std::string> cases[] = {
      {fifo, "a FIFO"}, {dir_, "a directory"}, {"/dev/zero", "a device"}};
  for (const auto& [path, kind] : cases) {
    const auto read = read_file(Env::system(), path, 100);
    EXPECT_EQ(read.status().code(), Code::kInvalidArgument) << path;
    EXPECT_THAT(read.status().message(), HasSubstr(path));
    EXPECT_THAT(read.status().message(), HasSubstr(kind));
  }
  EXPECT_EQ(read_file(Env::system(), file_, 100).status().code(), Code::kNotFound);
  EXPECT_EQ(read_file(Env::system(), std::string("a\0b", 3), 100).status().code(),
            Code::kInvalidArgument);
}

TEST_F(EnvTest, WritesAndReplaces) {
  ASSERT_TRUE(write_file_durably(Env::system(), file_, "first", 0600).ok());
  ASSERT_TRUE(write_file_durably(Env::system(), file_, "second", 0600).ok());
  EXPECT_EQ(get(file_), "second");
  EXPECT_EQ(entries(), 1u);
  struct stat info {};
  ASSERT_EQ(::stat(file_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
}

TEST_F(EnvTest, WritesInShortPieces) {
  FaultEnv env;
  env.limit_io(1);
  ASSERT_TRUE(write_file_durably(env, file_, "piecemeal", 0600).ok());
  EXPECT_EQ(get(file_), "piecemeal");
  EXPECT_EQ(env.calls(FaultEnv::kWrite), 9);
}

// Whatever call fails, with whatever error, the file is the old one or - only when everything but
// the directory sync was done - the new one; no temp file and no descriptor stays behind.
TEST_F(EnvTest, EveryFailingCallLeavesOldOrNewContents) {
  int fired = 0;
  for (int call = 0; call < FaultEnv::kCalls; ++call) {
    for (const int error : {ENOSPC, EIO, EMFILE, ENOMEM, EACCES}) {
      for (int n = 1;; ++n) {
        put(file_, "old");
        FaultEnv env;
        env.limit_io(2);  // so that there is more than one write
        env.fail_nth(static_cast<FaultEnv::Call>(call), n, error);
        const Status s = write_file_durably(env, file_, "brand new", 0600);
        SCOPED_TRACE(testing::Message() << FaultEnv::kNames[static_cast<size_t>(call)] << " #" << n
                                        << ": " << s.to_string());
        EXPECT_EQ(env.open_fds(), 0);
        EXPECT_EQ(entries(), 1u);
        if (!env.fired()) {
          EXPECT_TRUE(s.ok());
          break;
        }
        ++fired;
        const bool renamed = env.calls(FaultEnv::kRename) > 0 && call != FaultEnv::kRename;
        EXPECT_EQ(get(file_), renamed ? "brand new" : "old");
        if (!s.ok()) {
          EXPECT_THAT(s.message(), HasSubstr(dir_));
        }
        // Closing the directory afterwards is the one call whose failure means nothing.
        EXPECT_EQ(s.ok(), call == FaultEnv::kClose && renamed);
      }
    }
  }
  EXPECT_EQ(fired, 5 * (2 + 0 + 5 + 2 + 2 + 1 + 0));  // open, read, write, fsync, close, rename
}

TEST_F(EnvTest, InterruptedCallsAreRepeated) {
  for (const int call : {FaultEnv::kOpen, FaultEnv::kRead, FaultEnv::kWrite, FaultEnv::kFsync,
                         FaultEnv::kClose, FaultEnv::kRename}) {
    for (int n = 1;; ++n) {
      FaultEnv env;
      env.fail_nth(static_cast<FaultEnv::Call>(call), n, EINTR);
      ASSERT_TRUE(write_file_durably(env, file_, "text", 0600).ok());
      const auto text = read_file(env, file_, 100);
      ASSERT_TRUE(text.ok());
      EXPECT_EQ(*text, "text");
      EXPECT_EQ(env.open_fds(), 0);
      if (!env.fired()) break;
    }
  }
}

TEST_F(EnvTest, EveryFailingReadIsReported) {
  put(file_, "contents");
  for (const auto call : {FaultEnv::kOpen, FaultEnv::kRead}) {
    for (int n = 1;; ++n) {
      FaultEnv env;
      env.fail_nth(call, n, EIO);
      const auto text = read_file(env, file_, 100);
      EXPECT_EQ(env.open_fds(), 0);
      if (!env.fired()) break;
      EXPECT_EQ(text.status().code(), Code::kUnavailable);
      EXPECT_THAT(text.status().message(), HasSubstr(file_));
    }
  }
}

TEST_F(EnvTest, StepsOverTempFilesOfACrash) {
  const std::string stem = dir_ + "/.tmp-" + std::to_string(::getpid()) + "-";
  put(stem + "0", "left over");
  put(stem + "1", "left over");
  ASSERT_TRUE(write_file_durably(Env::system(), file_, "new", 0600).ok());
  EXPECT_EQ(get(file_), "new");
  EXPECT_EQ(entries(), 3u);
}

TEST_F(EnvTest, AbandonedDurableFileLeavesNothing) {
  {
    auto file = DurableFile::create(Env::system(), file_, 0600);
    ASSERT_TRUE(file.ok());
    ASSERT_TRUE(file->append(std::as_bytes(std::span(std::string_view("half")))).ok());
    EXPECT_EQ(entries(), 1u);
  }
  EXPECT_EQ(entries(), 0u);
}

TEST_F(EnvTest, MissingDirectoryIsNamed) {
  const Status s = write_file_durably(Env::system(), dir_ + "/none/state", "x", 0600);
  EXPECT_EQ(s.code(), Code::kNotFound);
  EXPECT_THAT(s.message(), HasSubstr(dir_ + "/none/state"));
}

TEST(ErrnoStatusTest, MapsToTheClosedSet) {
  const std::pair<int, Code> cases[] = {
      {ENOSPC, Code::kResourceExhausted}, {EMFILE, Code::kResourceExhausted},
      {ENFILE, Code::kResourceExhausted}, {ENOMEM, Code::kResourceExhausted},
      {ENOENT, Code::kNotFound},          {EACCES, Code::kPermissionDenied},
      {EPERM, Code::kPermissionDenied},   {EEXIST, Code::kAlreadyExists},
      {EIO, Code::kUnavailable},          {EAGAIN, Code::kUnavailable},
      {EISDIR, Code::kInvalidArgument},   {EDOM, Code::kInternal}};
  for (const auto& [error, code] : cases) {
    const Status s = errno_status("thing", error);
    EXPECT_EQ(s.code(), code) << error;
    EXPECT_THAT(s.message(), HasSubstr("thing: "));
  }
  EXPECT_EQ(errno_status("/srv/state", ENOSPC).to_string(),
            "/srv/state: No space left on device. Free space on that file system and retry.");
}

TEST(ParentDirectoryTest, Cases) {
  EXPECT_EQ(parent_directory("a"), ".");
  EXPECT_EQ(parent_directory("/a"), "/");
  EXPECT_EQ(parent_directory("a/b"), "a");
  EXPECT_EQ(parent_directory("/a/b/c"), "/a/b");
}

}  // namespace
}  // namespace chimera
