#include "daemon/registry/state/store.h"

#include <dirent.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>

#include "daemon/registry/state/format.h"

namespace chimera {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class StateStoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::temp_directory_path() / "chimera-state-XXXXXX";
    ASSERT_NE(mkdtemp(root_.data()), nullptr);
    dir_ = root_ + "/state";
  }
  void TearDown() override { fs::remove_all(root_); }

  std::unique_ptr<StateStore> open(Env& env = Env::system()) {
    auto store = StateStore::open(dir_, env);
    EXPECT_TRUE(store.ok()) << store.status().to_string();
    return store.ok() ? std::move(*store) : nullptr;
  }
  std::vector<std::string> files() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(dir_)) {
      if (entry.path().filename() != "lock") names.push_back(entry.path().filename());
    }
    std::sort(names.begin(), names.end());
    return names;
  }
  std::string newest() const { return dir_ + "/" + files().back(); }

  std::string root_, dir_;
};

EpochRecord record(uint64_t epoch, const std::string& module) {
  EpochRecord out;
  out.epoch = epoch;
  out.time = "2024-01-02T03:04:05Z";
  out.composition.backbone_fingerprint = "sha256:00";
  out.composition.top_k = 2;
  out.composition.modules.push_back({module, "1.0.0", "sha256:11", "/m/" + module, true, 0.1f});
  return out;
}

std::string last_module(const StateStore& store) {
  const auto history = store.history();
  return history.empty() ? "" : history.back().composition.modules.at(0).name;
}

size_t open_descriptors() {
  size_t n = 0;
  DIR* handle = opendir("/proc/self/fd");
  while (readdir(handle) != nullptr) ++n;
  closedir(handle);
  return n;
}

TEST_F(StateStoreTest, FirstStartIsEmptyAndPrivate) {
  const auto store = open();
  EXPECT_TRUE(store->history().empty());
  EXPECT_EQ(store->last_epoch(), 0u);
  struct stat info {};
  ASSERT_EQ(stat(dir_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700u);
}

TEST_F(StateStoreTest, RemembersExactly) {
  EpochRecord first = record(1, "legal");
  first.composition.top_k.reset();
  first.composition.modules.push_back({"bio", "2", "sha256:22", "/p\"q\n", false, -1.0f / 3.0f});
  first.composition.modules[0].lambda = {{"legal-a", 1.0 - 1.0 / 3.0},
                                         {"../legal \"b\"", 1.0 / 3.0}};
  first.composition.modules[1].precision = Precision::kQ8;
  first.composition.modules[1].weight = 1.0 / 3.0;
  {
    const auto store = open();
    ASSERT_TRUE(store->append(first).ok());
    ASSERT_TRUE(store->append(record(7, "finance")).ok());
  }
  const auto store = open();
  const auto history = store->history();
  ASSERT_EQ(history.size(), 2u);
  EXPECT_EQ(history[0].epoch, 1u);
  EXPECT_EQ(history[0].time, first.time);
  EXPECT_EQ(history[0].composition, first.composition);  // bias bit for bit
  EXPECT_EQ(history[1].epoch, 7u);
  EXPECT_EQ(store->last_epoch(), 7u);
  EXPECT_FALSE(store->append(record(7, "x")).ok());
  EXPECT_EQ(store->history().size(), 2u);
}

TEST_F(StateStoreTest, KeepsABoundedHistoryAndFewFiles) {
  const auto store = open();
  for (uint64_t e = 1; e <= StateStore::kHistory + 10; ++e) {
    ASSERT_TRUE(store->append(record(e, "m" + std::to_string(e))).ok());
  }
  EXPECT_EQ(store->history().size(), StateStore::kHistory);
  EXPECT_EQ(store->history().front().epoch, 11u);
  EXPECT_EQ(files().size(), 3u);
}

TEST_F(StateStoreTest, EachBackboneHasAHistoryOfItsOwn) {
  const auto of = [](uint64_t epoch, const std::string& backbone) {
    EpochRecord made = record(epoch, "m" + std::to_string(epoch));
    made.composition.backbone_fingerprint = backbone;
    return made;
  };
  const auto store = open();
  ASSERT_TRUE(store->append(of(1, "sha256:a")).ok());
  ASSERT_TRUE(store->append(of(2, "sha256:a")).ok());
  uint64_t epoch = 2;
  for (size_t i = 0; i < StateStore::kHistory + 5; ++i) {
    ASSERT_TRUE(store->append(of(++epoch, "sha256:b")).ok());
  }
  EXPECT_EQ(store->history_of("sha256:b").size(), StateStore::kHistory);
  EXPECT_EQ(store->history_of("sha256:a").size(), 2u);
  // The one that was not run for longest is forgotten first, and only as far as needed.
  for (size_t i = 0; i + 1 < StateStore::kAllHistory - StateStore::kHistory; ++i) {
    ASSERT_TRUE(store->append(of(++epoch, "sha256:" + std::to_string(i / 60))).ok());
  }
  EXPECT_EQ(store->history().size(), StateStore::kAllHistory);
  EXPECT_EQ(store->history_of("sha256:a").size(), 1u);
  EXPECT_EQ(store->history_of("sha256:a").front().epoch, 2u);
  EXPECT_EQ(store->history_of("sha256:b").size(), StateStore::kHistory);
}

TEST_F(StateStoreTest, RemembersPlaceAndRevocations) {
  EpochRecord made = record(5, "legal");
  made.origin = 3;
  made.revoked = {"bio", "finance"};
  made.set_aside = {{"legal", "sha256:1"}, {"other", "sha256:2"}};
  { ASSERT_TRUE(open()->append(made).ok()); }
  const EpochRecord read = open()->history().back();
  EXPECT_EQ(read.place(), 3u);
  EXPECT_EQ(read.revoked, made.revoked);
  EXPECT_EQ(read.set_aside, made.set_aside);
  EXPECT_EQ(record(5, "legal").place(), 5u);
}

// A bias of one of a thousand modules is a line and not a thousand, in the whole history.
TEST_F(StateStoreTest, AHistoryOfOptionsIsHardlyLongerThanOneComposition) {
  EpochRecord now = record(1, "m-0");
  for (int i = 1; i < 1024; ++i)
    now.composition.modules.push_back(record(1, "m-" + std::to_string(i)).composition.modules[0]);
  const auto store = open();
  ASSERT_TRUE(store->append(now).ok());
  const auto one = fs::file_size(newest());
  std::vector<EpochRecord> want;
  for (uint64_t e = 2; e <= 2 * StateStore::kHistory; ++e) {
    now.epoch = e;
    CompositionModule& module = now.composition.modules[e * 37 % 1024];
    module.bias += 0.1f;
    module.enabled = e % 5 != 0;
    module.lambda.clear();
    module.precision.reset();
    module.weight.reset();
    if (e % 7 == 0) module.weight = 0.1 * static_cast<double>(e);
    if (e % 4 == 0) module.precision = e % 8 == 0 ? Precision::kQ8 : Precision::kBF16;
    if (e % 3 == 0) module.lambda = {{"parent", 0.1 * static_cast<double>(e)}};
    ASSERT_TRUE(store->append(now).ok());
    if (e > StateStore::kHistory) want.push_back(now);
  }
  EXPECT_LT(fs::file_size(newest()), one + one / 8);
  const auto bytes = read_file(Env::system(), newest(), 128u << 20);
  ASSERT_TRUE(bytes.ok()) << bytes.status().to_string();
  const auto read = decode_state(*bytes);
  ASSERT_TRUE(read.ok()) << read.status().to_string();
  ASSERT_EQ(read->history.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) {
    EXPECT_EQ(read->history[i]->epoch, want[i].epoch);
    ASSERT_EQ(read->history[i]->composition, want[i].composition) << i;
  }
}

TEST_F(StateStoreTest, StatesOfTheFormatBeforeAreRead) {
  StateImage image;
  image.generation = 3;
  image.last_epoch = 9;
  image.history = {std::make_shared<const EpochRecord>(record(9, "legal"))};
  std::string old = encode_state(image);
  ASSERT_THAT(old, HasSubstr("chimera-state/2 3 "));
  old.replace(old.find("/2"), 2, "/1");
  const auto read = decode_state(old);
  ASSERT_TRUE(read.ok()) << read.status().to_string();
  EXPECT_EQ(read->history.at(0)->composition, record(9, "legal").composition);
}

TEST_F(StateStoreTest, RestartsDoNotPushOutOlderCompositions) {
  const auto store = open();
  ASSERT_TRUE(store->append(record(1, "old")).ok());
  for (uint64_t e = 2; e <= 200; ++e) ASSERT_TRUE(store->append(record(e, "same")).ok());
  EXPECT_EQ(store->history().front().composition.modules[0].name, "old");
  EXPECT_EQ(store->history().back().epoch, 200u);
}

TEST_F(StateStoreTest, RetractTakesTheNewestBackAndKeepsItsEpochUsed) {
  {
    const auto store = open();
    ASSERT_TRUE(store->append(record(1, "legal")).ok());
    ASSERT_TRUE(store->append(record(2, "bio")).ok());
    ASSERT_TRUE(store->retract().ok());
    EXPECT_EQ(last_module(*store), "legal");
  }
  const auto store = open();
  EXPECT_EQ(last_module(*store), "legal");
  EXPECT_EQ(store->last_epoch(), 2u);
}

TEST_F(StateStoreTest, SecondDaemonIsRefusedByPid) {
  const auto store = open();
  const auto second = StateStore::open(dir_, Env::system());
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.status().code(), Code::kFailedPrecondition);
  EXPECT_THAT(second.status().message(),
              HasSubstr("in use by process " + std::to_string(getpid())));
  EXPECT_THAT(second.status().message(), HasSubstr(dir_));
}

TEST_F(StateStoreTest, LockGoesWithItsHolder) {
  open().reset();
  EXPECT_NE(open(), nullptr);
}

TEST_F(StateStoreTest, ADamagedNewestIsGivenUpByAPersonAlone) {
  {
    const auto store = open();
    ASSERT_TRUE(store->append(record(1, "legal")).ok());
    ASSERT_TRUE(store->append(record(2, "bio")).ok());
  }
  std::fstream(newest(), std::ios::in | std::ios::out).seekp(90).put('#');
  const std::string corrupt = newest();
  for (int start = 0; start < 2; ++start) {
    const auto refused = StateStore::open(dir_, Env::system());
    ASSERT_EQ(refused.status().code(), Code::kDataCorrupt);
    EXPECT_THAT(refused.status().message(), HasSubstr(corrupt));
    EXPECT_THAT(refused.status().hint(), HasSubstr(corrupt.substr(dir_.size() + 1) + ".corrupt"));
    EXPECT_EQ(newest(), corrupt);
  }
  fs::rename(corrupt, corrupt + ".corrupt");
  {
    const auto store = open();
    EXPECT_EQ(last_module(*store), "legal");
    ASSERT_EQ(store->warnings().size(), 1u);
    EXPECT_THAT(store->warnings()[0], HasSubstr(corrupt));
    EXPECT_GE(store->last_epoch(), 2u);  // epoch 2 was handed out: never again
    ASSERT_TRUE(store->append(record(3, "finance")).ok());
  }
  EXPECT_EQ(last_module(*open()), "finance");
}

TEST_F(StateStoreTest, NothingReadableIsAnErrorNotAFreshStart) {
  ASSERT_TRUE(open()->append(record(1, "legal")).ok());
  std::ofstream(newest()) << "junk";
  const auto store = StateStore::open(dir_, Env::system());
  EXPECT_EQ(store.status().code(), Code::kDataCorrupt);
  EXPECT_THAT(store.status().hint(), HasSubstr(dir_));
}

TEST_F(StateStoreTest, ANewBeginningCountsOnBehindWhatWasSetAside) {
  for (const uint64_t epoch : {1u, 2u}) ASSERT_TRUE(open()->append(record(epoch, "legal")).ok());
  const std::string last = newest();
  for (const std::string& name : files()) {
    if (dir_ + "/" + name != last) fs::remove(dir_ + "/" + name);
  }
  fs::rename(last, last + ".corrupt");
  const auto store = open();
  EXPECT_TRUE(store->history().empty());
  EXPECT_GE(store->last_epoch(), 2u);
  ASSERT_EQ(store->warnings().size(), 1u);
  ASSERT_TRUE(store->append(record(store->last_epoch() + 1, "bio")).ok());
  EXPECT_EQ(last_module(*store), "bio");
  EXPECT_TRUE(fs::exists(last + ".corrupt"));
  EXPECT_FALSE(fs::exists(last));
}

// Every truncation and every flipped bit of a generation is noticed.
TEST_F(StateStoreTest, DecoderNoticesAnyDamage) {
  StateImage image;
  image.generation = 3;
  image.last_epoch = 9;
  EpochRecord biased = record(4, "legal");
  biased.epoch = 6;
  biased.composition.modules.front().bias = 0.25f;
  for (const EpochRecord& one : {record(4, "legal"), biased, record(9, "bio")})
    image.history.push_back(std::make_shared<const EpochRecord>(one));
  const std::string good = encode_state(image);
  ASSERT_TRUE(decode_state(good).ok());
  for (size_t n = 0; n < good.size(); ++n) {
    EXPECT_FALSE(decode_state(good.substr(0, n)).ok()) << n;
    for (int bit = 0; bit < 8; ++bit) {
      std::string bad = good;
      bad[n] = static_cast<char>(bad[n] ^ (1 << bit));
      const auto decoded = decode_state(bad);
      // The generation number is checked against the file name, and "0a" equals "0A" in hex.
      EXPECT_TRUE(!decoded.ok() || n < good.find('\n')) << n << " " << bit;
    }
  }
  EXPECT_FALSE(decode_state(good + " ").ok());
}

// --- faults ----------------------------------------------------------------------------------

// Fails the n-th call with an error; afterwards works again.
class FailingEnv : public Env {
 public:
  FailingEnv(int n, int error) : left_(n), error_(error) {}
  bool fired() const { return left_ <= 0; }

  int open(const char* p, int f, mode_t m) override { return fail() ? -1 : Env::open(p, f, m); }
  ssize_t read(int fd, void* b, size_t n) override { return fail() ? -1 : Env::read(fd, b, n); }
  ssize_t write(int fd, const void* b, size_t n) override {
    if (fail()) return -1;
    return Env::write(fd, b, (n + 1) / 2);  // short writes all the way
  }
  int fsync(int fd) override { return fail() ? -1 : Env::fsync(fd); }
  int close(int fd) override {
    const int result = Env::close(fd);  // Linux closes the descriptor whatever it returns
    return fail() ? -1 : result;
  }
  int rename(const char* a, const char* b) override { return fail() ? -1 : Env::rename(a, b); }
  int unlink(const char* p) override { return fail() ? -1 : Env::unlink(p); }

 private:
  bool fail() {
    if (--left_ != 0) return false;
    errno = error_;
    return true;
  }
  int left_;
  int error_;
};

TEST_F(StateStoreTest, FailingAnySystemCallLeavesOldOrNew) {
  for (const int error : {ENOSPC, EIO, EMFILE, EINTR, ENOMEM}) {
    int acknowledged = 0, refused = 0;
    for (int n = 1;; ++n) {
      fs::remove_all(dir_);
      ASSERT_TRUE(open()->append(record(1, "old")).ok());
      const size_t before = open_descriptors();
      FailingEnv env(n, error);
      bool ok = false;
      {
        auto store = StateStore::open(dir_, env);
        if (store.ok()) {
          ok = (*store)->append(record(2, "new")).ok();
          EXPECT_EQ(last_module(**store), ok ? "new" : "old");
          if (!ok) {  // the store goes on working
            EXPECT_TRUE((*store)->append(record(2, "retry")).ok());
            EXPECT_EQ(last_module(**store), "retry");
            ASSERT_TRUE((*store)->retract().ok());
          }
        }
      }
      EXPECT_EQ(open_descriptors(), before) << "call " << n;
      EXPECT_EQ(last_module(*open()), ok ? "new" : "old") << "call " << n << " errno " << error;
      for (const std::string& name : files()) EXPECT_EQ(name.find(".tmp"), std::string::npos);
      ++(ok ? acknowledged : refused);
      if (!env.fired()) break;
    }
    EXPECT_GT(acknowledged, 0);
    EXPECT_GT(refused, error == EINTR ? -1 : 4) << "errno " << error;  // the fault was felt
  }
}

TEST_F(StateStoreTest, UnreadableNewestIsNotMistakenForAnOldState) {
  {
    const auto store = open();
    ASSERT_TRUE(store->append(record(1, "old")).ok());
    ASSERT_TRUE(store->append(record(2, "new")).ok());
  }
  for (int n = 1; n <= 3; ++n) {
    FailingEnv env(n, EIO);
    const auto store = StateStore::open(dir_, env);
    EXPECT_TRUE(!store.ok() || last_module(**store) == "new") << n;
  }
}

// A process killed after each system call of the commit path.
class KillingEnv : public Env {
 public:
  explicit KillingEnv(int n) : left_(n) {}
  int open(const char* p, int f, mode_t m) override { return after(Env::open(p, f, m)); }
  ssize_t write(int fd, const void* b, size_t n) override {
    return after(Env::write(fd, b, (n + 1) / 2));
  }
  int fsync(int fd) override { return after(Env::fsync(fd)); }
  int close(int fd) override { return after(Env::close(fd)); }
  int rename(const char* a, const char* b) override { return after(Env::rename(a, b)); }
  int unlink(const char* p) override { return after(Env::unlink(p)); }

 private:
  template <class T>
  T after(T value) {
    if (--left_ == 0) raise(SIGKILL);
    return value;
  }
  int left_;
};

TEST_F(StateStoreTest, KilledAtAnySystemCallLeavesOldOrNew) {
  int killed = 0;
  for (int n = 1;; ++n) {
    fs::remove_all(dir_);
    {
      const auto store = open();
      for (uint64_t e = 1; e <= 3; ++e) ASSERT_TRUE(store->append(record(e, "old")).ok());
    }
    const pid_t child = fork();
    if (child == 0) {
      KillingEnv env(n);
      auto store = StateStore::open(dir_, env);
      _exit(store.ok() && (*store)->append(record(4, "new")).ok() ? 0 : 1);
    }
    int how = 0;
    ASSERT_EQ(waitpid(child, &how, 0), child);
    const std::string found = last_module(*open());
    if (WIFEXITED(how)) {
      EXPECT_EQ(WEXITSTATUS(how), 0);
      EXPECT_EQ(found, "new");
      break;
    }
    ++killed;
    EXPECT_TRUE(found == "old" || found == "new") << "call " << n << ": " << found;
    for (const std::string& name : files()) EXPECT_EQ(name.find(".tmp"), std::string::npos);
  }
  EXPECT_GE(killed, 8);
}

// Power loss: data that was not synced is cut off, names that were not synced go back.
class PowerLossEnv : public Env {
 public:
  explicit PowerLossEnv(int calls) : left_(calls) {}
  bool lost() const { return left_ <= 0; }

  int open(const char* path, int flags, mode_t mode) override {
    if (dead()) return -1;
    const int fd = Env::open(path, flags, mode);
    if (fd >= 0) {
      names_[fd] = path;
      if ((flags & O_CREAT) != 0) {
        unsynced_[path] = 0;
        const std::string created = path;
        undo_.push_back([created] { fs::remove(created); });
      }
    }
    return fd;
  }
  ssize_t write(int fd, const void* b, size_t n) override {
    return dead() ? -1 : Env::write(fd, b, (n + 1) / 2);
  }
  int fsync(int fd) override {
    if (dead()) return -1;
    struct stat info {};
    fstat(fd, &info);
    if (S_ISDIR(info.st_mode)) {
      undo_.clear();
    } else {
      unsynced_.erase(names_[fd]);
    }
    return Env::fsync(fd);
  }
  int close(int fd) override {
    Env::close(fd);
    return dead() ? -1 : 0;
  }
  int rename(const char* from, const char* to) override {
    if (dead()) return -1;
    const std::string a = from, b = to;
    if (const auto it = unsynced_.find(a); it != unsynced_.end()) {
      unsynced_[b] = it->second;
      unsynced_.erase(it);
    }
    const int result = Env::rename(from, to);
    undo_.push_back([a, b] { fs::rename(b, a); });
    return result;
  }
  int unlink(const char* path) override {
    if (dead()) return -1;
    const std::string name = path;
    std::ifstream in(name, std::ios::binary);
    const std::string contents((std::istreambuf_iterator<char>(in)), {});
    undo_.push_back([name, contents] { std::ofstream(name, std::ios::binary) << contents; });
    return Env::unlink(path);
  }

  /// `names`: whether unsynced creations, renames and removals are lost as well. File systems may
  /// keep a rename and lose the data behind it, so both are tried.
  void lose_power(bool names) {
    for (const auto& [path, size] : unsynced_) {
      if (fs::exists(path)) fs::resize_file(path, size);
    }
    if (!names) return;
    for (auto it = undo_.rbegin(); it != undo_.rend(); ++it) (*it)();
  }

 private:
  bool dead() {
    if (left_ <= 0) {
      errno = EIO;
      return true;
    }
    --left_;
    return false;
  }
  int left_;
  std::map<int, std::string> names_;
  std::map<std::string, size_t> unsynced_;
  std::vector<std::function<void()>> undo_;
};

TEST_F(StateStoreTest, PowerLossAtAnyPointLeavesOldOrNew) {
  for (const bool lose_names : {false, true}) {
    int kept_old = 0, kept_new = 0;
    bool more = true;
    for (int n = 1; more; ++n) {
      fs::remove_all(dir_);
      {
        const auto store = open();
        for (uint64_t e = 1; e <= 3; ++e) ASSERT_TRUE(store->append(record(e, "old")).ok());
      }
      PowerLossEnv env(n);
      bool acknowledged = false;
      {
        auto store = StateStore::open(dir_, env);
        if (store.ok()) acknowledged = (*store)->append(record(4, "new")).ok();
      }
      more = env.lost();
      env.lose_power(lose_names);
      const std::string found = last_module(*open());
      if (acknowledged) {
        EXPECT_EQ(found, "new") << "an acknowledged change was lost at call " << n;
      } else {
        EXPECT_TRUE(found == "old" || found == "new") << "call " << n;
      }
      ++(found == "old" ? kept_old : kept_new);
    }
    EXPECT_GT(kept_old, 3);
    EXPECT_GT(kept_new, 0);
  }
}

// The same power loss finds a writer that forgets to sync: the test above can fail.
TEST_F(StateStoreTest, PowerLossModelFindsAMissingSync) {
  fs::create_directory(dir_);
  PowerLossEnv env(100);
  const std::string path = dir_ + "/file";
  const int fd = env.open((path + "~").c_str(), O_WRONLY | O_CREAT, 0600);
  ASSERT_GT(env.write(fd, "contents", 8), 0);
  env.close(fd);
  ASSERT_EQ(env.rename((path + "~").c_str(), path.c_str()), 0);
  env.lose_power(false);
  EXPECT_EQ(fs::file_size(path), 0u);
}

// A really full file system where one can be had; the size limit of the process otherwise.
TEST_F(StateStoreTest, FullDiskIsAnErrorThatNamesIt) {
  ASSERT_TRUE(open()->append(record(1, "old")).ok());
  const pid_t child = fork();
  if (child == 0) {
    auto store = StateStore::open(dir_, Env::system());
    if (!store.ok()) _exit(2);
    signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{64, 64};  // bytes any file may grow to
    setrlimit(RLIMIT_FSIZE, &limit);
    const Status status = (*store)->append(record(2, "new"));
    _exit(!status.ok() && last_module(**store) == "old" ? 0 : 1);
  }
  int how = 0;
  ASSERT_EQ(waitpid(child, &how, 0), child);
  EXPECT_TRUE(WIFEXITED(how) && WEXITSTATUS(how) == 0) << how;
  EXPECT_EQ(last_module(*open()), "old");
  EXPECT_EQ(files().size(), 1u);

  FailingEnv env(1000, 0);
  const auto store = open(env);
  FailingEnv full(2, ENOSPC);
  const Status status = write_file_durably(full, dir_ + "/x", "contents", 0600);
  EXPECT_EQ(status.code(), Code::kResourceExhausted);
  EXPECT_THAT(status.to_string(), HasSubstr("No space left on device"));
}

}  // namespace
}  // namespace chimera
