// What clients take: budgets of tokens, and the ledger.
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <thread>

#include "base/io/fault_env.h"
#include "daemon/security/token_budget.h"
#include "daemon/security/usage_ledger.h"

namespace chimera {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

Principal client(const std::string& name, std::optional<int64_t> per_minute) {
  Principal out;
  out.name = name;
  out.limits.tokens_per_minute = per_minute;
  return out;
}

TEST(TokenBudget, AMinutesWorthAndThenAtTheRate) {
  TokenBudget budget;
  const Principal a = client("a", 600), b = client("b", 600), free = client("c", std::nullopt);
  const auto start = TokenBudget::Clock::now();
  EXPECT_TRUE(budget.take(a, 650, start).ok()) << "the last request may go beyond";
  const Status refusal = budget.take(a, 1, start);
  EXPECT_EQ(refusal.code(), Code::kResourceExhausted);
  EXPECT_EQ(refusal.hint(), "try again in 6 s");
  EXPECT_TRUE(budget.take(b, 1, start).ok());
  EXPECT_FALSE(budget.take(a, 1, start + seconds(5)).ok());
  EXPECT_TRUE(budget.take(a, 60, start + seconds(6)).ok());
  EXPECT_FALSE(budget.take(a, 1, start + seconds(6)).ok());
  EXPECT_TRUE(budget.take(a, 600, start + seconds(3600)).ok());
  EXPECT_FALSE(budget.take(a, 1, start + seconds(3600)).ok()) << "an hour's worth was saved up";
  budget.give_back(a, 500);  // it was not needed
  EXPECT_TRUE(budget.take(a, 500, start + seconds(3600)).ok());
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(budget.take(free, 1'000'000, start).ok());
}

class Ledger : public testing::Test {
 protected:
  void SetUp() override {
    dir_ = std::filesystem::temp_directory_path() / "chimera-usage-XXXXXX";
    ASSERT_NE(mkdtemp(dir_.data()), nullptr);
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }
  std::unique_ptr<UsageLedger> open(UsageLedger::Options options = {}) {
    options.directory = dir_ + "/usage";
    auto ledger = UsageLedger::open(std::move(options));
    EXPECT_TRUE(ledger.ok());
    return std::move(*ledger);
  }
  /// One that writes when it is told to, and at its end.
  std::unique_ptr<UsageLedger> open_idle(Env* env, uint64_t compact_bytes = uint64_t{4} << 20) {
    return open({.directory = "",
                 .interval = std::chrono::hours(1),
                 .compact_bytes = compact_bytes,
                 .env = env});
  }
  static DoneEvent answer() {
    DoneEvent done;
    done.prompt_tokens = 10;
    done.completion_tokens = 5;
    done.backbone_share = 0.75;
    done.backbone_rows = 90;
    done.modules["legal"] = {"1.2.0", "sha256:d", 0.25, 30};
    done.modules["bio"] = {"1.0.0", "sha256:e", 0.0, 0};  // permitted, and never chosen
    return done;
  }
  static uint64_t requests(const UsageLedger& ledger) {
    uint64_t sum = 0;
    const auto rows = ledger.read(0);
    EXPECT_TRUE(rows.ok());
    for (const auto& [key, row] : *rows) {
      if (key.module == kBackboneUsage) sum += row.requests;
      EXPECT_EQ(row.prompt_tokens, static_cast<int64_t>(row.requests) * 10);
    }
    return sum;
  }
  std::filesystem::path file() const {
    return std::filesystem::directory_iterator(dir_ + "/usage")->path();
  }
  std::string dir_;
};

TEST_F(Ledger, SumsByClientModuleAndHour) {
  const auto ledger = open();
  for (int i = 0; i < 3; ++i) ledger->add("alice", answer());
  ledger->add("bob", answer());
  ledger->add("bob", DoneEvent());  // ended before anything was computed
  const auto rows = ledger->read(0);
  ASSERT_TRUE(rows.ok());
  ASSERT_GE(rows->size(), 4u);  // 8 where an hour has just begun
  UsageSum sum;
  for (const auto& [key, row] : *rows) {
    EXPECT_EQ(key.hour % 3600, 0);
    EXPECT_NE(key.module, "bio");
    if (key.client == "alice" && key.module == "legal" && key.version == "1.2.0") sum.add(row);
    const auto later = ledger->read(key.hour + 2 * 3600);
    EXPECT_TRUE(later.ok() && later->empty());
  }
  EXPECT_EQ(sum.requests, 3u);
  EXPECT_EQ(sum.prompt_tokens, 30);
  EXPECT_EQ(sum.completion_tokens, 15);
  EXPECT_EQ(sum.rows, 90u);
  EXPECT_DOUBLE_EQ(sum.share, 0.75);
}

TEST_F(Ledger, OutlivesItsDaemonAndCountsNothingTwice) {
  for (int run = 0; run < 3; ++run) {
    const auto ledger = open_idle(&Env::system());
    for (int i = 0; i < 10; ++i) {
      ledger->add("alice", answer());
      if (i % 3 == 0) ledger->flush();
    }
    EXPECT_EQ(requests(*ledger), 10u * static_cast<uint64_t>(run + 1));
  }
  EXPECT_EQ(requests(*open()), 30u);
}

TEST_F(Ledger, ACallThatFailsLosesNothingAndDoublesNothing) {
  for (const auto call :
       {FaultEnv::kOpen, FaultEnv::kWrite, FaultEnv::kFsync, FaultEnv::kRename, FaultEnv::kRead}) {
    for (int n = 1; n <= 6; ++n) {
      std::filesystem::remove_all(dir_ + "/usage");
      FaultEnv env;
      env.fail_nth(call, n, ENOSPC);
      env.limit_io(100);  // so that a line takes several writes
      {
        const auto ledger = open_idle(&env, /*compact_bytes=*/900);
        for (int i = 0; i < 6; ++i) {
          ledger->add("alice", answer());
          ledger->flush();
        }
      }
      EXPECT_EQ(env.open_fds(), 0);
      EXPECT_EQ(requests(*open()), 6u) << FaultEnv::kNames[call] << " " << n;
    }
  }
}

/// Syncs that fail after their data was written, and cannot be undone, as a disk that goes away
/// may.
TEST_F(Ledger, ALineThatIsThereTwiceCountsOnce) {
  {
    const auto ledger = open_idle(&Env::system());
    ledger->add("alice", answer());
  }
  std::string line;
  std::getline(std::ifstream(file()), line);
  std::ofstream(file(), std::ios::app) << line << "\n" << line;
  EXPECT_EQ(requests(*open()), 1u);
}

TEST_F(Ledger, GrownFilesAreSummedUp) {
  const auto ledger = open_idle(&Env::system(), /*compact_bytes=*/4096);
  for (int i = 0; i < 100; ++i) {
    ledger->add("alice", answer());
    ledger->flush();
  }
  EXPECT_EQ(requests(*ledger), 100u);
  EXPECT_LT(std::filesystem::file_size(file()), 8192u);  // 100 lines are some 30 kB
}

TEST_F(Ledger, KilledAtAnyTimeItHoldsWhatWasWritten) {
  int told[2];
  ASSERT_EQ(pipe(told), 0);
  const pid_t child = fork();
  if (child == 0) {
    const auto ledger = open({.directory = "", .interval = milliseconds(1), .compact_bytes = 2048});
    for (uint64_t n = 1;; ++n) {
      ledger->add("alice", answer());
      if (n % 64 != 0) continue;
      ledger->flush();
      if (write(told[1], &n, sizeof n) != sizeof n) _exit(1);
    }
  }
  close(told[1]);
  uint64_t n = 0;
  for (int i = 0; i < 20; ++i) ASSERT_EQ(read(told[0], &n, sizeof n), ssize_t{sizeof n});
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  while (read(told[0], &n, sizeof n) == ssize_t{sizeof n}) {
  }
  close(told[0]);
  std::ofstream(file(), std::ios::app) << R"({"batch":"x","rows":[{"hour":0,"cl)";  // cut off
  const auto ledger = open();
  const uint64_t before = requests(*ledger);
  EXPECT_GE(before, n);
  EXPECT_LE(before, n + 64);
  ledger->add("alice", answer());
  ledger->flush();
  EXPECT_EQ(requests(*ledger), before + 1);
}

}  // namespace
}  // namespace chimera
