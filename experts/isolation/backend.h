// A library module in a process of its own, as the daemon sees it.
//
// A keeper thread per module starts the host, watches it, and starts it again when it ended: after
// 0.1 s, 0.2 s, … 30 s. Five ends within a minute, and the library is in quarantine (quarantine.h).
// Between an end and the next start forward answers `unavailable` at once.
//
// A forward pass waits for its calls for LibraryCeilings::pass in all. Then it goes on without
// them: the call under way is left behind, asked to give up, and taken out of the way when it has
// answered (late.cc). Until then, and for 0.1 s, 0.2 s, … 30 s from one such pass to the next,
// calls are answered `unavailable` at once.
//
// What counts as an end: the process is gone, a call took longer than library.deadline_ms and the
// plugin did not give up, the plugin poisoned itself (status internal), wrote outside of its rows,
// or the host broke the protocol.
//
// Thread safety: as LibraryBackend; calls are ordered by a mutex of this process, none is shared
// with the host. What start() gave holds that mutex until it is finished.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <deque>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "base/threads/mutex.h"
#include "experts/isolation/payload.h"
#include "experts/isolation/process.h"
#include "experts/library/backend.h"
#include "experts/library/quarantine.h"

namespace chimera {

/// One life of a host. Shared by the keeper and the call under way; ends with the last of them.
struct HostLife {
  HostLife(HostChannel c, std::unique_ptr<HostPort> p)
      : channel(std::move(c)), port(std::move(p)) {}
  HostChannel channel;
  std::unique_ptr<HostPort> port;
  std::unique_ptr<HostProcess> process;
  std::string end;  // why it had to be killed; guarded by IsolatedBackend's mutex
};

class IsolatedBackend final : public LibraryBackend, public ExpertExecutor {
 public:
  IsolatedBackend(const LibrarySource& source, HostPayload payload, std::string program,
                  std::shared_ptr<LibraryRuntime> runtime);
  /// Retires the plugin and ends its host.
  ~IsolatedBackend() override;
  /// Starts the host and waits until it serves, or the load is given up (progress.h).
  Status open();

  Isolation isolation() const override { return Isolation::kProcess; }
  const LibraryInfo& info() const override { return info_; }
  LibraryStatus status() const override;
  uint64_t resident_bytes() const override { return resident_bytes_.load(); }
  Status forward(int64_t layer, int64_t expert, const float* x, int64_t rows, float* y,
                 ExpertContext& ctx) override;

  ExpertExecutor& executor() override { return *this; }
  ExecutorPlace place() const override { return ExecutorPlace::kElsewhere; }
  /// One call: the host computes one after the other, and is the next pass's when it is done.
  std::unique_ptr<RunningCalls> start(std::span<ExpertCall> calls, ExpertContext& pass) override;

 private:
  using Clock = std::chrono::steady_clock;
  class Call;
  class Running;

  // backend.cc: calls.
  std::shared_ptr<HostLife> host() const;
  struct Limits {
    Clock::time_point own;                      // the plugin's time is up
    std::optional<Clock::time_point> wanted;    // nobody wants the rows after that
    std::optional<Clock::time_point> patience;  // the pass goes on without them after that
  };
  HostPort::Wait await_part(HostLife& host, const Limits& limits, HostPort::Answer* answer);
  Status take_part(HostLife& host, const Limits& limits, int64_t rows, float* y);
  void lose(HostLife& host, const std::string& why);
  Status lost_status() const;
  void stop();

  // late.cc: passes that go on without a call. With call_mutex_ held, where not said otherwise.
  /// Until when the pass waits for a call from now on; nullopt: for as long as it takes. (Any
  /// thread.)
  std::optional<Clock::time_point> patience_of(uint64_t pass) const;
  /// Takes the time since `begin` off what the pass waits. (Any thread.)
  void count_wait(uint64_t pass, Clock::time_point begin);
  /// The turn of a call, unowned when the pass goes on without it.
  MovableMutexLock take_turn(uint64_t pass);
  /// What calls are answered of a pass that waits no more. (Any thread.)
  Status spent_status() const;
  /// It is not called for a while.
  void begin_rest();
  /// Leaves the calls under way to themselves: what the call is answered.
  Status leave(HostLife& host, const Limits& limits);
  /// Takes what a call left behind has answered meanwhile. unavailable while it has not, while the
  /// library rests, and when its host is lost for it.
  Status catch_up(HostLife& host);

  // keeper.cc: the keeper thread.
  void keep();
  Result<std::shared_ptr<HostLife>> launch() REQUIRES(keeper_role_);
  Status await_ready(HostLife& host, HostReady* ready) REQUIRES(keeper_role_);
  Status accept(HostReady ready) REQUIRES(keeper_role_);
  void watch(HostLife& host) REQUIRES(keeper_role_);
  Status handle(const HostFrame& frame) REQUIRES(keeper_role_);
  void log_line(const HostLog& line) REQUIRES(keeper_role_);
  /// True when the library went into quarantine.
  bool count_end(const std::string& how) REQUIRES(keeper_role_);
  void retire(HostLife& host);
  bool sleep(std::chrono::milliseconds time);
  void log(LibraryRuntime::Severity severity, const std::string& line) const;

  const std::string module_, version_;
  const std::chrono::milliseconds limit_;
  const uint64_t hidden_;
  const HostPayload payload_;
  const std::string program_;
  const std::shared_ptr<LibraryRuntime> runtime_;
  Quarantine quarantine_;

  Mutex call_mutex_;                 // held by the call under way, not by one that was left behind
  bool left_ = false;                // one was; guarded by call_mutex_, as the next three
  Clock::time_point left_limit_;     // by when it has to have answered
  Clock::time_point rests_until_{};  // it is not called
  std::chrono::milliseconds rest_{0};
  std::atomic<uint64_t> calls_{0}, failures_{0}, resident_bytes_{0};

  mutable Mutex mutex_;
  std::shared_ptr<HostLife> host_ GUARDED_BY(mutex_);  // null: not serving
  LibraryState state_ GUARDED_BY(mutex_) = LibraryState::kStarting;
  std::string last_error_ GUARDED_BY(mutex_);
  std::string sandbox_ GUARDED_BY(mutex_);
  uint64_t restarts_ GUARDED_BY(mutex_) = 0;
  HostCounters counters_ GUARDED_BY(mutex_);
  struct Waited {
    uint64_t pass = 0;
    std::chrono::nanoseconds time{0};
  };
  std::array<Waited, 4> waited_ GUARDED_BY(mutex_);  // of the last passes
  size_t next_waited_ GUARDED_BY(mutex_) = 0;

  // Written before open() returns, then constant.
  LibraryInfo info_;

  ThreadRole keeper_role_;
  std::promise<Status> opened_;
  bool first_ GUARDED_BY(keeper_role_) = true;
  std::deque<Clock::time_point> ends_ GUARDED_BY(keeper_role_);
  std::chrono::milliseconds backoff_ GUARDED_BY(keeper_role_);
  int lines_this_second_ GUARDED_BY(keeper_role_) = 0;
  int frames_this_second_ GUARDED_BY(keeper_role_) = 0;
  Clock::time_point second_ GUARDED_BY(keeper_role_);
  std::atomic<bool> stopping_{false};
  int wake_fd_ = -1;  // an eventfd: stopping
  std::thread keeper_;
};

/// As open_in_process, with the plugin inside a chimera-plugin-host of its own.
Result<std::shared_ptr<LibraryBackend>> open_isolated(LibrarySource source,
                                                      std::shared_ptr<LibraryRuntime> runtime);

}  // namespace chimera
