// The keeper thread of an IsolatedBackend: starts hosts, watches them, counts their ends.
#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>

#include "experts/isolation/backend.h"

namespace chimera {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Severity = LibraryRuntime::Severity;

constexpr milliseconds kFirstBackoff{100};
constexpr milliseconds kLongestBackoff{30'000};
// A host that lived this long starts the back-off afresh.
constexpr seconds kHealthy{60};
constexpr size_t kEndsToQuarantine = 5;
constexpr seconds kQuarantineWindow{60};
// For deactivate, destroy and deinit when a module is retired.
constexpr milliseconds kRetireLimit{1000};
constexpr milliseconds kReapLimit{5000};
constexpr milliseconds kTick{1000};
// A host cuts floods of log lines itself; one that sends more than this was taken over.
constexpr int kLinesPerSecond = 50;
constexpr int kFramesPerSecond = 2000;

std::string utc_time() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[32];
  const size_t n = std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &parts);
  return {text, n};
}

}  // namespace

void IsolatedBackend::log(Severity severity, const std::string& line) const {
  runtime_->log(severity, module_, line);
}

void IsolatedBackend::keep() {
  const ThreadRoleScope role(keeper_role_);
  backoff_ = kFirstBackoff;
  for (;;) {
    const Clock::time_point started = Clock::now();
    Result<std::shared_ptr<HostLife>> host = launch();
    if (first_) {
      first_ = false;
      const Status status = host.status();
      opened_.set_value(status);
      if (!status.ok()) return;
    }
    std::string how;
    if (host.ok()) {
      watch(**host);
      if (stopping_) return retire(**host);
      const MutexLock guard(mutex_);
      how = (*host)->end;
    } else {
      how = "did not start: " + host.status().message();
    }
    if (stopping_) return;
    if (count_end(how)) {
      while (!sleep(kLongestBackoff)) {
      }
      return;
    }
    if (Clock::now() - started >= kHealthy) backoff_ = kFirstBackoff;
    if (sleep(backoff_)) return;
    backoff_ = std::min(backoff_ * 2, kLongestBackoff);
  }
}

/// True: stop.
bool IsolatedBackend::sleep(milliseconds time) {
  pollfd fd{wake_fd_, POLLIN, 0};
  (void)::poll(&fd, 1, static_cast<int>(time.count()));
  return stopping_;
}

Result<std::shared_ptr<HostLife>> IsolatedBackend::launch() {
  auto port = HostPort::create({hidden_, payload_.load.slot_rows});
  if (!port.ok()) return port.status();
  auto channels = HostChannel::pair();
  if (!channels.ok()) return channels.status();
  auto host = std::make_shared<HostLife>(std::move(channels->first), std::move(*port));
  {
    const HostChannel theirs = std::move(channels->second);
    auto process = HostProcess::start(program_, theirs.fd());
    if (!process.ok()) return process.status();
    host->process = std::move(*process);
  }
  CHIMERA_RETURN_IF_ERROR(send_host_payload(host->channel, payload_, *host->port));
  HostReady ready;
  CHIMERA_RETURN_IF_ERROR(await_ready(*host, &ready));
  CHIMERA_RETURN_IF_ERROR(accept(std::move(ready)));
  host->port->close_files();
  runtime_->count_loaded();
  const MutexLock guard(mutex_);
  host_ = host;
  state_ = LibraryState::kActive;
  if (!first_) ++restarts_;
  return host;
}

/// Passes on log lines until the host serves, refuses or is gone.
Status IsolatedBackend::await_ready(HostLife& host, HostReady* ready) {
  const milliseconds most = runtime_->options().ceilings.load;
  const Clock::time_point limit = Clock::now() + most;
  while (!stopping_) {
    // Whatever it tells meanwhile.
    const auto left = std::chrono::ceil<milliseconds>(limit - Clock::now());
    if (left.count() <= 0) {
      return {Code::kDeadlineExceeded,
              fmt::format("module {}: its plugin host found no end of loading (expected one "
                          "within {} ms, libraries.max_load_ms of the deployment)",
                          module_, most.count())};
    }
    const Result<HostChannel::Received> message =
        host.channel.receive(std::min(left, milliseconds(100)));
    if (!message.ok()) {
      if (message.status().code() == Code::kDeadlineExceeded) continue;
      host.process->kill();
      const auto how = host.process->wait(kReapLimit);
      return {Code::kFailedPrecondition,
              fmt::format("module {}: its process {} while loading", module_,
                          how.value_or("did not end")),
              "chimera-plugin-check on the module says what its library does wrong."};
    }
    const HostFrame& frame = message->frame;
    if (frame.type == HostMessage::kReady) {
      Result<HostReady> decoded = decode_ready(frame.payload);
      if (!decoded.ok()) return decoded.status();
      *ready = std::move(*decoded);
      return {};
    }
    if (frame.type == HostMessage::kFailed) {
      const Result<HostFailed> failed = decode_failed(frame.payload);
      return failed.ok() ? failed->status : failed.status();
    }
    CHIMERA_RETURN_IF_ERROR(handle(frame));
  }
  return {Code::kCancelled, "module " + module_ + ": retired while its host was loading"};
}

Status IsolatedBackend::accept(HostReady ready) {
  if (first_) {
    info_ = std::move(ready.info);
    log(Severity::kInfo, "runs in a process of its own: " + ready.sandbox);
  } else if (ready.info.id != info_.id || ready.info.version != info_.version ||
             ready.info.max_rows != info_.max_rows || ready.info.bitwise != info_.bitwise) {
    return {Code::kFailedPrecondition,
            fmt::format("module {}: found plugin {} {} after a restart (expected {} {}, as before)",
                        module_, ready.info.id, ready.info.version, info_.id, info_.version)};
  }
  resident_bytes_ = ready.resident_bytes;
  const MutexLock guard(mutex_);
  sandbox_ = std::move(ready.sandbox);
  return {};
}

/// Returns when the host has ended, with the reason in host.end, or when it is time to stop.
void IsolatedBackend::watch(HostLife& host) {
  second_ = Clock::now();
  lines_this_second_ = frames_this_second_ = 0;
  while (!stopping_) {
    pollfd fds[] = {{wake_fd_, POLLIN, 0},
                    {host.channel.fd(), POLLIN, 0},
                    {host.process->pid_fd(), POLLIN, 0}};  // a negative descriptor is left out
    (void)::poll(fds, 3, static_cast<int>(kTick.count()));
    if (Clock::now() - second_ >= seconds(1)) {
      second_ = Clock::now();
      lines_this_second_ = frames_this_second_ = 0;
    }
    // One that was left behind is ended at its own limit, whether it is called again or not.
    if (const MovableMutexLock turn(call_mutex_, std::try_to_lock); turn.owns_lock()) {
      (void)catch_up(host);
    }
    std::optional<std::string> how = host.process->ended();
    if (!how && fds[1].revents != 0) {
      const Result<HostChannel::Received> message = host.channel.receive(milliseconds(0));
      Status status = message.ok() ? handle(message->frame) : message.status();
      if (status.ok() || status.code() == Code::kDeadlineExceeded) continue;
      // Hung up: the process is ending, or its code closed the socket.
      if (status.code() != Code::kUnavailable)
        lose(host, "broke the protocol: " + status.message());
      how = host.process->wait(milliseconds(100));
      if (!how) {
        lose(host, "closed its socket");
        how = host.process->wait(kReapLimit);
      }
      if (!how) how = "does not end";
    }
    if (!how) continue;
    lose(host, *how);
    runtime_->count_unloaded();
    return;
  }
}

Status IsolatedBackend::handle(const HostFrame& frame) {
  if (++frames_this_second_ > kFramesPerSecond) {
    return {Code::kDataCorrupt,
            fmt::format("found more than {} messages in a second", kFramesPerSecond)};
  }
  if (frame.type == HostMessage::kLog) {
    const Result<HostLog> line = decode_log(frame.payload);
    if (!line.ok()) return line.status();
    log_line(*line);
    return {};
  }
  if (frame.type == HostMessage::kCounters) {
    Result<HostCounters> counters = decode_counters(frame.payload);
    if (!counters.ok()) return counters.status();
    const MutexLock guard(mutex_);
    counters_ = std::move(*counters);
    return {};
  }
  return {Code::kDataCorrupt, fmt::format("found a message of type {} (expected a log line or "
                                          "counters)",
                                          static_cast<int>(frame.type))};
}

void IsolatedBackend::log_line(const HostLog& line) {
  if (++lines_this_second_ > kLinesPerSecond) return runtime_->count_dropped_lines(1);
  log(line.severity, line.line);
}

bool IsolatedBackend::count_end(const std::string& how) {
  const Clock::time_point now = Clock::now();
  ends_.push_back(now);
  while (now - ends_.front() > kQuarantineWindow) ends_.pop_front();
  const bool enough = ends_.size() >= kEndsToQuarantine;
  {
    const MutexLock guard(mutex_);
    last_error_ = "its process " + how;
    state_ = enough ? LibraryState::kQuarantined : LibraryState::kRestarting;
  }
  if (!enough) {
    log(Severity::kError,
        fmt::format("its process {}; restarting in {} ms", how, backoff_.count()));
    return false;
  }
  const Status kept = quarantine_.put(
      payload_.key, {module_, version_, info_.id, how, utc_time(), static_cast<int>(ends_.size())});
  log(Severity::kError,
      fmt::format("its process {}; {} times within {} s: the library is in quarantine{}", how,
                  ends_.size(), kQuarantineWindow.count(),
                  kept.ok() ? "" : ", for this run of the daemon only: " + kept.message()));
  return true;
}

void IsolatedBackend::retire(HostLife& host) {
  {
    const MutexLock guard(mutex_);
    host_ = nullptr;
    state_ = LibraryState::kRetired;
  }
  if (host.channel.send(HostMessage::kStop, {}).ok()) {
    const auto how = host.process->wait(kRetireLimit);
    if (!how) {
      log(Severity::kWarning, fmt::format("its process did not end within {} ms of being retired; "
                                          "killed",
                                          kRetireLimit.count()));
    } else if (*how != "exited with status 0") {
      log(Severity::kWarning, "its process " + *how + " while being retired");
    }
  }
  host.process->kill();
  if (host.process->wait(kReapLimit)) runtime_->count_unloaded();
}

}  // namespace chimera
