// The lists of system calls at work, each case in a child process.
#include "experts/isolation/sandbox/sandbox.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <functional>
#include <thread>

namespace chimera {
namespace {

constexpr int kNotInForce = 99;
constexpr int kX32Bit = 0x40000000;

/// The wait status of a child that runs `body` under the lists and exits with its result.
int run_under(std::initializer_list<CallList> lists, const std::function<int()>& body) {
  const pid_t child = fork();
  if (child == 0) {
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    for (const CallList list : lists) {
      int calls = 0;
      if (restrict_calls(list, &calls) != 0 || calls < 30) _exit(kNotInForce);
    }
    _exit(body());
  }
  int status = 0;
  waitpid(child, &status, 0);
  return status;
}
bool killed_by_sigsys(int status) { return WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS; }
int exit_status(int status) { return WIFEXITED(status) ? WEXITSTATUS(status) : -1; }
/// What a call answers: 0 or its errno.
int answer(long result) { return result < 0 ? errno : 0; }

class SystemCalls : public testing::Test {
 protected:
  void SetUp() override {
    if (kSanitizerBuild) GTEST_SKIP() << "sanitizers make calls of their own";
  }
};

TEST_F(SystemCalls, ServingKillsWhatIsOffTheList) {
  const std::pair<const char*, std::function<int()>> calls[] = {
    {"socket", [] { return answer(socket(AF_UNIX, SOCK_STREAM, 0)); }},
    {"execve", [] { return answer(execl("/bin/true", "true", nullptr)); }},
    {"kill", [] { return answer(kill(getpid(), 0)); }},
    {"memfd_create", [] { return answer(memfd_create("x", 0)); }},
    {"seccomp", [] { return answer(syscall(SYS_seccomp, 0, 0, nullptr)); }},
#if defined(__x86_64__)
    {"getpid of x32", [] { return answer(syscall(kX32Bit | SYS_getpid)); }},
#endif
  };
  for (const auto& [name, call] : calls) {
    EXPECT_TRUE(killed_by_sigsys(run_under({CallList::kServing}, call))) << name;
    EXPECT_TRUE(killed_by_sigsys(run_under({CallList::kLoading, CallList::kServing}, call)))
        << name << " after loading";
  }
}

TEST_F(SystemCalls, ServingRefusesWhatLibrariesTryByThemselves) {
  const auto serving = [](const std::function<int()>& call) {
    return exit_status(run_under({CallList::kLoading, CallList::kServing}, call));
  };
  EXPECT_EQ(serving([] { return answer(open("/etc/passwd", O_RDONLY)); }), EACCES);
  EXPECT_EQ(serving([] { return answer(syscall(SYS_ioctl, 1, 0x5401, nullptr)); }), ENOTTY);
  EXPECT_EQ(serving([] { return answer(fork()); }), EAGAIN);
  EXPECT_EQ(serving([] { return answer(syscall(SYS_clone3, nullptr, 0)); }), ENOSYS);
}

TEST_F(SystemCalls, ServingMapsMemoryButNoCode) {
  const auto map = [](int protection) {
    void* const at = mmap(nullptr, 4096, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return at == MAP_FAILED ? errno : 0;
  };
  const auto protect = [](int protection) {
    void* const at = mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return answer(mprotect(at, 4096, protection));
  };
  const auto serving = [](const std::function<int()>& call) {
    return exit_status(run_under({CallList::kServing}, call));
  };
  EXPECT_EQ(serving([&] { return map(PROT_READ | PROT_WRITE); }), 0);
  EXPECT_EQ(serving([&] { return map(PROT_READ | PROT_EXEC); }), EPERM);
  EXPECT_EQ(serving([&] { return protect(PROT_READ | PROT_WRITE); }), 0);
  EXPECT_EQ(serving([&] { return protect(PROT_READ | PROT_EXEC); }), EPERM);
}

TEST_F(SystemCalls, SignalsReachTheOwnProcessOnly) {
  const auto own = [] {
    return answer(syscall(SYS_tgkill, static_cast<long>(getpid()), static_cast<long>(gettid()), 0));
  };
  const long parent = getpid();
  const auto others = [parent] { return answer(syscall(SYS_tgkill, parent, parent, 0)); };
  for (const CallList list : {CallList::kLoading, CallList::kServing}) {
    EXPECT_EQ(exit_status(run_under({list}, own)), 0);
    EXPECT_TRUE(killed_by_sigsys(run_under({list}, others)));
  }
}

TEST_F(SystemCalls, LoadingTellsNoAndMakesThreads) {
  const auto loading = [](const std::function<int()>& call) {
    return exit_status(run_under({CallList::kLoading}, call));
  };
  EXPECT_EQ(loading([] { return answer(socket(AF_UNIX, SOCK_STREAM, 0)); }), EPERM);
  EXPECT_EQ(loading([] { return answer(execl("/bin/true", "true", nullptr)); }), EPERM);
  EXPECT_EQ(loading([] { return answer(fork()); }), EPERM);
  EXPECT_EQ(loading([] { return answer(syscall(SYS_clone, CLONE_VM | SIGCHLD, 0, 0, 0, 0)); }),
            EPERM);
  EXPECT_EQ(loading([] { return answer(setsid()); }), EPERM);
#if defined(__x86_64__)
  EXPECT_EQ(loading([] { return answer(syscall(SYS_fork)); }), EPERM);
  EXPECT_EQ(loading([] { return answer(syscall(SYS_vfork)); }), EPERM);
#endif
  EXPECT_EQ(loading([] {
              std::thread([] {}).join();
              return 7;
            }),
            7);
}

TEST_F(SystemCalls, BindThreadsThatWereThereBefore) {
  EXPECT_TRUE(killed_by_sigsys([] {
    const pid_t child = fork();
    if (child == 0) {
      std::atomic<bool> go{false};
      std::thread before([&] {
        while (!go) std::this_thread::yield();
        socket(AF_UNIX, SOCK_STREAM, 0);
        _exit(0);
      });
      prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
      int calls = 0;
      if (restrict_calls(CallList::kServing, &calls) != 0) _exit(kNotInForce);
      go = true;
      before.join();
    }
    int status = 0;
    waitpid(child, &status, 0);
    return status;
  }()));
}

}  // namespace
}  // namespace chimera
