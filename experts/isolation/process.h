// A chimera-plugin-host as a child process: started bare, watched through a pidfd, killed, reaped.
//
// The child gets an empty environment, /dev/null for standard input, output and error, its end of
// the socket pair as descriptor 3 and no other descriptor, no blocked or ignored signals, and a
// process group of its own, so that a Ctrl-C meant for the daemon does not reach it.
//
// It dies with the thread that started it (PR_SET_PDEATHSIG): start it from one that lives as long.
//
// Thread safety: kill() from any thread; the rest from one.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "base/status.h"
#include "base/threads/mutex.h"

namespace chimera {

/// The descriptor under which a host finds its socket.
inline constexpr int kHostControlFd = 3;

/// chimera-plugin-host beside the running program, or the one that `configured` names.
Result<std::string> find_host_program(const std::string& configured);

class HostProcess {
 public:
  /// `control_fd`: the child's end; stays the caller's.
  static Result<std::unique_ptr<HostProcess>> start(const std::string& program, int control_fd);
  /// Kills and reaps, as kill() does.
  ~HostProcess();
  HostProcess(const HostProcess&) = delete;
  HostProcess& operator=(const HostProcess&) = delete;

  pid_t pid() const { return pid_; }
  /// Readable once the process has ended; -1 where the kernel has no pidfd.
  int pid_fd() const { return pid_fd_; }
  /// With all processes that it started and that stayed in its group.
  void kill();
  /// How it ended, e.g. "was killed by signal 11 (SIGSEGV)"; nullopt while it runs.
  std::optional<std::string> ended();
  /// ended(), waiting at most `timeout`.
  std::optional<std::string> wait(std::chrono::milliseconds timeout);

 private:
  HostProcess(pid_t pid, int pid_fd) : pid_(pid), pid_fd_(pid_fd) {}

  const pid_t pid_;
  const int pid_fd_;
  Mutex mutex_;
  bool reaped_ GUARDED_BY(mutex_) = false;  // then no signal to a pid that may be somebody else's
  std::string how_ GUARDED_BY(mutex_);
};

}  // namespace chimera
