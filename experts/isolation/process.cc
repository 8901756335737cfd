#include "experts/isolation/process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <thread>

#include "base/io/env.h"
#include "experts/isolation/sandbox/sandbox.h"

namespace chimera {
namespace {

/// What posix_spawn is told; freed with the object.
struct SpawnPlan {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;

  explicit SpawnPlan(int control_fd) {
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    // A sanitizer's report is worth the noise.
    if (!kSanitizerBuild) posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, control_fd, kHostControlFd);
    posix_spawn_file_actions_addclosefrom_np(&actions, kHostControlFd + 1);
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setflags(
        &attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
  }
  ~SpawnPlan() {
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
  }
};

std::string describe_end(int status) {
  if (WIFSIGNALED(status)) {
    const int signal = WTERMSIG(status);
    const char* name = sigabbrev_np(signal);
    const char* note = signal == SIGSYS ? ": a system call that its sandbox forbids" : "";
    return fmt::format("was killed by signal {} (SIG{}){}", signal, name != nullptr ? name : "?",
                       note);
  }
  return fmt::format("exited with status {}", WEXITSTATUS(status));
}

}  // namespace

Result<std::string> find_host_program(const std::string& configured) {
  std::error_code error;
  std::string path = configured;
  if (path.empty()) {
    const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
    path = (self.parent_path() / "chimera-plugin-host").string();
  }
  if (::access(path.c_str(), X_OK) == 0) return path;
  return Status(Code::kFailedPrecondition,
                fmt::format("plugin host: found no program {} (expected chimera-plugin-host beside "
                            "chimerad)",
                            path),
                "Install both programs into one directory.");
}

Result<std::unique_ptr<HostProcess>> HostProcess::start(const std::string& program,
                                                        int control_fd) {
  const SpawnPlan plan(control_fd);
  const std::string parent = std::to_string(::getpid());
  char* const argv[] = {const_cast<char*>("chimera-plugin-host"), const_cast<char*>("--parent"),
                        const_cast<char*>(parent.c_str()), nullptr};
  char* const environment[] = {nullptr};
  pid_t pid = -1;
  const int error =
      posix_spawn(&pid, program.c_str(), &plan.actions, &plan.attributes, argv, environment);
  if (error != 0) return errno_status("plugin host: starting " + program, error);
  const auto pid_fd = static_cast<int>(::syscall(SYS_pidfd_open, pid, 0));
  return std::unique_ptr<HostProcess>(new HostProcess(pid, pid_fd));
}

HostProcess::~HostProcess() {
  kill();
  while (!wait(std::chrono::milliseconds(1000))) {
  }
  if (pid_fd_ >= 0) ::close(pid_fd_);
}

void HostProcess::kill() {
  const MutexLock guard(mutex_);
  if (reaped_) return;
  ::kill(-pid_, SIGKILL);
  ::kill(pid_, SIGKILL);  // it may have left its group
}

std::optional<std::string> HostProcess::ended() {
  const MutexLock guard(mutex_);
  if (reaped_) return how_;
  siginfo_t end{};
  if (::waitid(P_PID, static_cast<id_t>(pid_), &end, WEXITED | WNOHANG | WNOWAIT) == 0) {
    if (end.si_pid == 0) return std::nullopt;
    // What it started and left behind. Until it is reaped nobody else's group has its number.
    ::kill(-pid_, SIGKILL);
  } else if (errno == EINTR) {
    return std::nullopt;
  }
  int status = 0;
  const pid_t got = ::waitpid(pid_, &status, WNOHANG);
  reaped_ = true;
  // ECHILD: somebody else reaped it, which chimerad never does.
  how_ = got == pid_ ? describe_end(status) : "ended in an unknown way";
  return how_;
}

std::optional<std::string> HostProcess::wait(std::chrono::milliseconds timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  for (;;) {
    if (auto how = ended()) return how;
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        deadline - std::chrono::steady_clock::now());
    if (left.count() <= 0) return std::nullopt;
    if (pid_fd_ >= 0) {
      pollfd fd{pid_fd_, POLLIN, 0};
      (void)::poll(&fd, 1, static_cast<int>(left.count()) + 1);
    } else {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }
}

}  // namespace chimera
