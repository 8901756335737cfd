// What a real plugin learns of the deadlines and epochs of its rows, in this process and in one of
// its own: tests/plugins/runtime/sinner.cc, which asks chimera.cancel/1 when it "gives_up".
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <thread>

#include "base/steady_time.h"
#include "experts/isolation/backend.h"

namespace chimera {
namespace {

using std::chrono::milliseconds;
using testing::AnyOf;
using Clock = std::chrono::steady_clock;
namespace fs = std::filesystem;

constexpr int64_t kHidden = 16;
constexpr float kTrigger = 12345.0f;
constexpr int64_t kOwnLimitMs = 600000;
// Far below the plugin's own limit, far above what a busy machine needs to notice.
constexpr milliseconds kSoon{60000};

LibrarySource sinner(const std::string& module, const std::string& config) {
  LibrarySource s;
  s.module = module;
  s.version = "1.0.0";
  s.spec.file = "sinner.so";
  s.spec.config = config;
  s.spec.memory_mib = 16;
  s.hidden_size = kHidden;
  s.experts = {{0, 1}, {1, 1}};
  std::ifstream file(CHIMERA_BINARY_DIR "/plugins/runtime_sinner.so", std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), {});
  const auto view = std::as_bytes(std::span(bytes));
  s.note = *read_elf_note(view, "runtime_sinner.so");
  s.image = std::make_shared<const SealedFile>(std::move(*SealedFile::create("sinner", view)));
  return s;
}

class PluginDeadline : public testing::TestWithParam<Isolation> {
 protected:
  void SetUp() override {
    std::string pattern = fs::temp_directory_path() / "chimera-deadline-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    state_ = pattern;
  }
  void TearDown() override { fs::remove_all(state_); }

  /// `pass`: LibraryCeilings::pass.
  std::shared_ptr<LibraryBackend> open(const std::string& config, int64_t limit_ms = kOwnLimitMs,
                                       milliseconds pass = milliseconds::max()) {
    LibrarySource s = sinner("sinner", config);
    s.spec.deadline_ms = limit_ms;
    LibraryRuntime::Options options;
    options.worker_count = 2;
    options.host_program = CHIMERA_BINARY_DIR "/bin/chimera-plugin-host";
    options.state_dir = state_;
    options.allow_in_process = true;
    options.ceilings.pass = pass;
    auto runtime = std::make_shared<LibraryRuntime>(std::move(options));
    auto backend = GetParam() == Isolation::kProcess ? open_isolated(std::move(s), runtime)
                                                     : open_in_process(std::move(s), runtime);
    EXPECT_TRUE(backend.ok()) << backend.status().to_string();
    return backend.ok() ? *backend : nullptr;
  }

  Status call(LibraryBackend& backend, float first, int64_t rows, uint64_t deadline_ns,
              const uint64_t* epochs = nullptr) {
    x_.assign(static_cast<size_t>(rows * kHidden), 0.25f);
    x_[0] = first;
    y_.assign(x_.size(), -1.0f);
    ExpertContext context{best_kernels(), pool_, scratch_};
    context.deadline_ns = deadline_ns;
    context.row_epochs = epochs;
    context.pass = pass_;
    return backend.forward(1, 0, x_.data(), rows, y_.data(), context);
  }
  /// Whether it serves, at the latest when its process is there again.
  bool serves(LibraryBackend& backend) {
    const auto end = Clock::now() + kSoon;
    while (!call(backend, 1.0f, 1, 0).ok()) {
      if (Clock::now() > end) return false;
      std::this_thread::sleep_for(milliseconds(5));
    }
    return true;
  }
  static uint64_t in(milliseconds time) { return steady_ns(Clock::now() + time); }

  std::string state_;
  ThreadPool pool_{1};
  FloatBuffer scratch_;
  uint64_t pass_ = 0;  // that the calls are part of
  std::vector<float> x_, y_;
};

/// Of what only a process of its own can do: to be left behind.
class LeftBehind : public PluginDeadline {
 protected:
  /// Whether it serves a pass, at the latest when it has rested.
  bool serves_again(LibraryBackend& backend) {
    const auto end = Clock::now() + kSoon;
    for (++pass_; !call(backend, 1.0f, 1, 0).ok(); ++pass_) {
      if (Clock::now() > end) return false;
      std::this_thread::sleep_for(milliseconds(5));
    }
    return true;
  }
};

TEST_P(PluginDeadline, ItGivesUpWhenNobodyWaitsAndHasNotFailed) {
  const auto backend = open("gives_up");
  ASSERT_NE(backend, nullptr);
  for (const int64_t rows : {1, 300}) {  // 300: five calls of the plugin, two slots
    const auto start = Clock::now();
    const Status status = call(*backend, kTrigger, rows, in(milliseconds(50)));
    EXPECT_EQ(status.code(), Code::kDeadlineExceeded) << status.to_string();
    EXPECT_NE(status.message().find("given up"), std::string::npos) << status.message();
    EXPECT_GE(Clock::now() - start, milliseconds(50));
    EXPECT_LT(Clock::now() - start, kSoon);
    // The same process serves on.
    ASSERT_TRUE(call(*backend, 1.0f, rows, in(milliseconds(kOwnLimitMs))).ok());
    EXPECT_EQ(y_[0], 0.5f);
  }
  EXPECT_EQ(backend->status().failures, 0u);
  EXPECT_EQ(backend->status().restarts, 0u);
  EXPECT_EQ(backend->status().state, LibraryState::kActive);
}

TEST_P(PluginDeadline, ItsOwnLimitIsStillAFailure) {
  const auto backend = open("gives_up", 200);
  ASSERT_NE(backend, nullptr);
  for (const uint64_t deadline : {uint64_t{0}, in(milliseconds(kOwnLimitMs))}) {
    const Status status = call(*backend, kTrigger, 1, deadline);
    // A host that a busy machine keeps from answering within the grace is ended instead.
    EXPECT_THAT(status.code(), AnyOf(Code::kDeadlineExceeded, Code::kUnavailable))
        << status.to_string();
    EXPECT_EQ(status.message().find("given up"), std::string::npos) << status.message();
    ASSERT_TRUE(serves(*backend));
  }
  EXPECT_GE(backend->status().failures, 2u);
}

// The result is there: whether somebody still wants it is for the caller to say.
TEST_P(PluginDeadline, WhatIsComputedLateIsKept) {
  const auto backend = open("none");
  ASSERT_NE(backend, nullptr);
  ASSERT_TRUE(call(*backend, 1.0f, 3, /*deadline_ns=*/1).ok());
  EXPECT_EQ(y_[0], 0.5f);
  EXPECT_EQ(backend->status().failures, 0u);
}

TEST_P(PluginDeadline, RowsSayTheirEpochs) {
  const auto backend = open("epochs");
  ASSERT_NE(backend, nullptr);
  constexpr int64_t kRows = 300;
  std::vector<uint64_t> epochs(kRows);
  for (size_t i = 0; i < epochs.size(); ++i) epochs[i] = 100 + i % 7;
  ASSERT_TRUE(call(*backend, 1.0f, kRows, 0, epochs.data()).ok());
  for (size_t row = 0; row < epochs.size(); ++row) {
    EXPECT_EQ(y_[row * kHidden], static_cast<float>(epochs[row])) << row;
    EXPECT_EQ(y_[row * kHidden + 1], 0.0f) << "different epochs, and batch.epoch names one";
  }
  epochs.assign(kRows, 42);
  ASSERT_TRUE(call(*backend, 1.0f, kRows, 0, epochs.data()).ok());
  EXPECT_EQ(y_[299 * kHidden], 42.0f);
  EXPECT_EQ(y_[299 * kHidden + 1], 42.0f);
  ASSERT_TRUE(call(*backend, 1.0f, 2, 0).ok());  // on no table
  EXPECT_EQ(y_[0], 0.0f);
  EXPECT_EQ(y_[1], 0.0f);
}

// A plugin may be slow within its deadline, and the pass goes on without it.
TEST_P(LeftBehind, APassWaitsNoLongerThanItMay) {
  const auto backend = open("gives_up", kOwnLimitMs, milliseconds(50));
  ASSERT_NE(backend, nullptr);
  for (const int64_t rows : {1, 300, 3000}) {  // 3000: more than the slots take at once
    ++pass_;
    const auto start = Clock::now();
    const Status late = call(*backend, kTrigger, rows, 0);
    EXPECT_LT(Clock::now() - start, kSoon);
    EXPECT_EQ(late.code(), Code::kUnavailable);
    EXPECT_NE(late.message().find("libraries.max_step_ms"), std::string::npos) << late.message();
    // Its other layers wait no more.
    const Status rest = call(*backend, 1.0f, 1, 0);
    EXPECT_EQ(rest.code(), Code::kUnavailable) << rest.to_string();
    ASSERT_TRUE(serves_again(*backend));
    EXPECT_EQ(y_[0], 0.5f);
  }
  EXPECT_EQ(backend->status().restarts, 0u) << "it did nothing wrong";
  EXPECT_EQ(backend->status().state, LibraryState::kActive);
  EXPECT_NE(backend->status().last_error.find("a step waits"), std::string::npos);
}

TEST_P(LeftBehind, ItsOwnLimitIsHeldEvenIfNobodyCalls) {
  const auto backend = open("spin", 500, milliseconds(50));
  ASSERT_NE(backend, nullptr);
  pass_ = 1;
  EXPECT_EQ(call(*backend, kTrigger, 1, 0).code(), Code::kUnavailable);
  const auto end = Clock::now() + kSoon;
  while (backend->status().restarts == 0 && Clock::now() < end) {
    std::this_thread::sleep_for(milliseconds(5));
  }
  EXPECT_EQ(backend->status().restarts, 1u) << "it was not ended";
  EXPECT_TRUE(serves_again(*backend));
}

// Many short waits of one pass are a long one.
TEST_P(LeftBehind, TheLayersOfAPassShareTheTime) {
  const auto backend = open("nap", kOwnLimitMs, milliseconds(150));
  ASSERT_NE(backend, nullptr);
  pass_ = 1;
  int calls = 0;
  while (calls < 20 && call(*backend, kTrigger, 1, 0).ok()) ++calls;
  EXPECT_LT(calls, 20) << "20 ms each";
  EXPECT_TRUE(serves_again(*backend));
}

TEST_P(LeftBehind, WhatIsNoPassHasItsTime) {
  const auto backend = open("nap", kOwnLimitMs, milliseconds(1));
  ASSERT_NE(backend, nullptr);
  EXPECT_TRUE(call(*backend, kTrigger, 1, 0).ok());
}

// In a process of its own: the library that hangs stays in it.
TEST(InThisProcess, WhoHangsWhileLoadingIsNamedToThoseBehindIt) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto scene = [] {
    std::atomic<bool> told{false};
    const auto open = [&told](const std::string& module, const std::string& config) {
      LibraryRuntime::Options options;
      options.ceilings.load = milliseconds(200);
      options.log = [&told](LibraryRuntime::Severity, const std::string& of,
                            const std::string& line) {
        std::fprintf(stderr, "%s: %s\n", of.c_str(), line.c_str());
        if (of == "hangs") told = true;
      };
      return open_in_process(sinner(module, config),
                             std::make_shared<LibraryRuntime>(std::move(options)));
    };
    auto before = open("before", "none");
    if (!before.ok()) _exit(2);
    // Again where those behind it had the turn too long, as on a machine that is busy.
    std::thread([&] {
      while (!told) (void)open("hangs", "hang_in_activate");
    }).detach();
    auto behind = open("behind", "none");
    while (behind.ok() || !told) {  // until the other has its turn, and has had it too long
      std::this_thread::sleep_for(milliseconds(5));
      behind = open("behind", "none");
    }
    std::fprintf(stderr, "%s\n", behind.status().to_string().c_str());
    *before = nullptr;  // comes back
    _exit(behind.status().code() == Code::kUnavailable ? 0 : 3);
  };
  EXPECT_EXIT(scene(), testing::ExitedWithCode(0),
              "hangs: is not loaded after 200 ms(.|\n)*module behind: a call of module hangs "
              "inside(.|\n)*before: library .* stays mapped");
}

INSTANTIATE_TEST_SUITE_P(Everywhere, LeftBehind, testing::Values(Isolation::kProcess),
                         [](const auto&) { return "InAProcessOfItsOwn"; });
INSTANTIATE_TEST_SUITE_P(Everywhere, PluginDeadline,
                         testing::Values(Isolation::kInProcess, Isolation::kProcess),
                         [](const auto& where) {
                           return where.param == Isolation::kProcess ? "InAProcessOfItsOwn"
                                                                     : "InThisProcess";
                         });

}  // namespace
}  // namespace chimera
