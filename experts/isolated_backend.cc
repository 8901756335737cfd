// open_isolated and the calls of an IsolatedBackend.
#include "experts/isolated_backend.h"

#include <fmt/format.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "backbone/env.h"

namespace chimera {
namespace {

// How long a plugin may take to notice that it should give up, before its process is killed.
constexpr std::chrono::milliseconds kGrace{20};

uint64_t as_ns(std::chrono::steady_clock::time_point t) {
  return static_cast<uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(t.time_since_epoch()).count());
}

}  // namespace

IsolatedBackend::IsolatedBackend(const LibrarySource& source, HostPayload payload,
                                 std::string program, std::shared_ptr<LibraryRuntime> runtime)
    : module_(source.module),
      version_(source.version),
      limit_(source.spec.deadline_ms),
      hidden_(static_cast<uint64_t>(source.hidden_size)),
      payload_(std::move(payload)),
      program_(std::move(program)),
      runtime_(std::move(runtime)),
      quarantine_(runtime_->options().state_dir) {}

IsolatedBackend::~IsolatedBackend() {
  stopping_ = true;
  if (wake_fd_ >= 0) {
    const uint64_t one = 1;
    (void)!::write(wake_fd_, &one, sizeof(one));
  }
  if (keeper_.joinable()) keeper_.join();
  if (wake_fd_ >= 0) ::close(wake_fd_);
}

Status IsolatedBackend::open() {
  CHIMERA_RETURN_IF_ERROR(quarantine_.check(payload_.key, module_));
  wake_fd_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (wake_fd_ < 0) return errno_status("plugin host: eventfd", errno);
  std::future<Status> opened = opened_.get_future();
  // All starts come from this thread: a host dies with the thread that started it.
  keeper_ = std::thread([this] { keep(); });
  return opened.get();
}

LibraryStatus IsolatedBackend::status() const {
  LibraryStatus status;
  status.calls = calls_.load();
  status.failures = failures_.load();
  const std::lock_guard guard(mutex_);
  status.state = state_;
  status.restarts = restarts_;
  status.last_error = last_error_;
  status.sandbox = sandbox_;
  status.counters = counters_;
  return status;
}

Status IsolatedBackend::forward(int64_t layer, int64_t expert, const float* x, int64_t rows,
                                float* y, ExpertContext& ctx) {
  calls_.fetch_add(1, std::memory_order_relaxed);
  const std::lock_guard one_at_a_time(call_mutex_);
  std::shared_ptr<HostLife> host;
  {
    const std::lock_guard guard(mutex_);
    host = host_;
  }
  Status status = host == nullptr ? lost_status() : run(*host, layer, expert, x, rows, y, ctx);
  if (!status.ok()) failures_.fetch_add(1, std::memory_order_relaxed);
  return status;
}

/// Parts of at most a slot's rows, several under way: the host computes one while the rows of the
/// next are copied in and those of the one before are copied out.
Status IsolatedBackend::run(HostLife& host, int64_t layer, int64_t expert, const float* x,
                            int64_t rows, float* y, const ExpertContext& ctx) {
  const auto most = static_cast<int64_t>(payload_.load.slot_rows);
  const auto hidden = static_cast<int64_t>(hidden_);
  Status failure;
  Clock::time_point deadline = Clock::now() + limit_;
  int64_t sent = 0, taken = 0;
  while (taken < rows && (failure.ok() || host.port->in_flight() > 0)) {
    while (failure.ok() && sent < rows && host.port->in_flight() < kHostSlots) {
      const int64_t n = std::min(most, rows - sent);
      std::memcpy(host.port->next_input(), x + sent * hidden,
                  static_cast<size_t>(n * hidden) * sizeof(float));
      // Those before it may take their time as well.
      const uint64_t own = as_ns(deadline + limit_ * host.port->in_flight());
      const uint64_t until = ctx.deadline_ns != 0 ? std::min(ctx.deadline_ns, own) : own;
      host.port->submit(static_cast<uint32_t>(layer), static_cast<uint32_t>(expert),
                        static_cast<uint32_t>(n), until, ctx.epoch);
      sent += n;
    }
    const int64_t n = std::min(most, rows - taken);
    const Status part = take_part(host, deadline, n, failure.ok() ? y + taken * hidden : nullptr);
    if (failure.ok()) failure = part;
    if (!part.ok() && part.code() == Code::kUnavailable) break;  // the host is lost
    taken += n;
    deadline = Clock::now() + limit_;
  }
  return failure;
}

/// The oldest part under way; copies its rows to `y` unless null. unavailable: the host is lost.
Status IsolatedBackend::take_part(HostLife& host, Clock::time_point deadline, int64_t rows,
                                  float* y) {
  HostPort::Answer answer;
  HostPort::Wait wait = host.port->take(deadline, &answer);
  if (wait == HostPort::Wait::kLate) {
    host.port->cancel(true);
    wait = host.port->take(deadline + kGrace, &answer);
    host.port->cancel(false);
  }
  switch (wait) {
    case HostPort::Wait::kLate:
      lose(host, fmt::format("did not answer within {} ms", limit_.count()));
      return lost_status();
    case HostPort::Wait::kLost:
      return lost_status();
    case HostPort::Wait::kCorrupt:
      lose(host, "broke the protocol: " + answer.status.message());
      return lost_status();
    case HostPort::Wait::kDone:
      break;
  }
  if (!answer.guards_intact) {
    lose(host, "wrote outside of its rows");
    return lost_status();
  }
  if (answer.status.code() == Code::kInternal) {
    lose(host, "poisoned itself: " + answer.status.message());
    return lost_status();
  }
  if (answer.status.ok() && y != nullptr) {
    std::memcpy(y, answer.y, static_cast<size_t>(rows) * hidden_ * sizeof(float));
  }
  host.port->release();
  // unavailable means something else here; a plugin's own would be taken for a lost host.
  if (answer.status.code() == Code::kUnavailable) {
    return {Code::kFailedPrecondition, answer.status.message()};
  }
  if (answer.status.code() != Code::kCancelled) return answer.status;
  return {Code::kDeadlineExceeded, fmt::format("the plugin took longer than {} ms", limit_.count()),
          "Raise library.deadline_ms in module.yaml."};
}

void IsolatedBackend::lose(HostLife& host, const std::string& why) {
  {
    const std::lock_guard guard(mutex_);
    if (host.end.empty()) host.end = why;
    last_error_ = "its process " + host.end;
    state_ = "restarting";
    if (host_.get() == &host) host_ = nullptr;
  }
  host.port->lose();
  host.process->kill();  // the keeper sees it end
}

Status IsolatedBackend::lost_status() const {
  const std::lock_guard guard(mutex_);
  if (state_ == "quarantined") {
    return {Code::kUnavailable, "the library is in quarantine: " + last_error_,
            "Load a corrected version of the module, or exclude it with modules.exclude."};
  }
  return {Code::kUnavailable,
          fmt::format("the plugin is lost: {}",
                      last_error_.empty() ? "its process ended" : last_error_),
          "It is being restarted: try again, or exclude the module with modules.exclude."};
}

Result<std::shared_ptr<LibraryBackend>> open_isolated(LibrarySource source,
                                                      std::shared_ptr<LibraryRuntime> runtime) {
  Result<std::string> program = find_host_program(runtime->options().host_program);
  if (!program.ok()) return program.status().with_context("module " + source.module);
  Result<HostPayload> payload = pack_host_payload(source, runtime->worker_count());
  if (!payload.ok()) return payload.status().with_context("module " + source.module);
  auto backend = std::make_shared<IsolatedBackend>(source, std::move(*payload), std::move(*program),
                                                   std::move(runtime));
  CHIMERA_RETURN_IF_ERROR(backend->open());
  return std::shared_ptr<LibraryBackend>(std::move(backend));
}

}  // namespace chimera
