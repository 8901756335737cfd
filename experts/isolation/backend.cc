// open_isolated and the calls of an IsolatedBackend.
#include "experts/isolation/backend.h"

#include <fmt/format.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "base/io/env.h"
#include "base/steady_time.h"
#include "base/threads/progress.h"
#include "experts/library/library_expert.h"

namespace chimera {
namespace {

// How long a plugin may take to notice that it should give up, before its process is killed.
constexpr std::chrono::milliseconds kGrace{20};
// How often who waits for a host to serve looks whether the load is still wanted.
constexpr std::chrono::milliseconds kLookUp{50};

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
  stop();
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
  while (opened.wait_for(kLookUp) != std::future_status::ready) {
    if (work_given_up()) stop();
  }
  return opened.get();
}

void IsolatedBackend::stop() {
  stopping_ = true;
  if (wake_fd_ < 0) return;
  const uint64_t one = 1;
  (void)!::write(wake_fd_, &one, sizeof(one));
}

LibraryStatus IsolatedBackend::status() const {
  LibraryStatus status;
  status.calls = calls_.load();
  status.failures = failures_.load();
  const MutexLock guard(mutex_);
  status.state = state_;
  status.restarts = restarts_;
  status.last_error = last_error_;
  status.sandbox = sandbox_;
  status.counters = counters_;
  return status;
}

/// One forward: parts of at most a slot's rows, several under way, so that the host computes one
/// while the rows of the next are copied in and those of the one before are copied out. The first
/// parts are on their way when the constructor returns.
class IsolatedBackend::Call {
 public:
  struct Rows {
    int64_t layer, expert;
    const float* x;
    int64_t count;
    float* y;
  };

  Call(IsolatedBackend& backend, MovableMutexLock turn, const Rows& rows, const ExpertContext& ctx)
      : backend_(backend),
        turn_(std::move(turn)),
        host_(backend.host()),
        rows_(rows),
        row_epochs_(ctx.row_epochs),
        pass_(ctx.pass),
        limits_{Clock::now() + backend.limit_, std::nullopt, std::nullopt} {
    if (ctx.deadline_ns != 0) limits_.wanted = steady_time(ctx.deadline_ns);
    backend_.calls_.fetch_add(1, std::memory_order_relaxed);
    begun_ = turn_.owns_lock() ? prepare() : backend_.spent_status();
    if (begun_.ok()) send();
  }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;
  ~Call() {
    if (!finished_) (void)finish();
  }

  /// Waits for the end: what forward returns.
  Status finish() {
    finished_ = true;
    const Clock::time_point begin = Clock::now();
    Status status = begun_.ok() ? receive() : begun_;
    if (!status.ok() && !unwanted(status)) {
      backend_.failures_.fetch_add(1, std::memory_order_relaxed);
    }
    if (turn_.owns_lock()) turn_.unlock();
    backend_.count_wait(pass_, begin);
    return status;
  }

 private:
  Status prepare() {
    if (host_ == nullptr) return backend_.lost_status();
    CHIMERA_RETURN_IF_ERROR(backend_.catch_up(*host_));
    const auto patience = backend_.patience_of(pass_);
    if (!patience || *patience > Clock::now()) return {};
    backend_.begin_rest();
    return backend_.spent_status();
  }
  /// As many parts as there are slots for.
  void send() {
    const auto most = static_cast<int64_t>(backend_.payload_.load.slot_rows);
    const auto hidden = static_cast<int64_t>(backend_.hidden_);
    HostPort& port = *host_->port;
    while (sent_ < rows_.count && port.in_flight() < kHostSlots) {
      const int64_t n = std::min(most, rows_.count - sent_);
      HostPort::Call call;
      call.layer = static_cast<uint32_t>(rows_.layer);
      call.expert = static_cast<uint32_t>(rows_.expert);
      call.rows = static_cast<uint32_t>(n);
      call.x = rows_.x + sent_ * hidden;
      if (row_epochs_ != nullptr) call.row_epochs = row_epochs_ + sent_;
      if (limits_.wanted) call.deadline_ns = steady_ns(*limits_.wanted);
      // Those before it may take their time as well.
      call.limit_ns = steady_ns(limits_.own + backend_.limit_ * port.in_flight());
      port.submit(call);
      sent_ += n;
    }
  }

  Status receive() {
    const auto most = static_cast<int64_t>(backend_.payload_.load.slot_rows);
    const auto hidden = static_cast<int64_t>(backend_.hidden_);
    // The time since start() was the caller's: an answer that is nearly there is still waited for.
    limits_.own = std::max(limits_.own, Clock::now() + kGrace);
    limits_.patience = backend_.patience_of(pass_);
    Status failure;
    int64_t taken = 0;
    while (taken < rows_.count && (failure.ok() || host_->port->in_flight() > 0)) {
      const int64_t n = std::min(most, rows_.count - taken);
      float* const y = failure.ok() ? rows_.y + taken * hidden : nullptr;
      const Status part = backend_.take_part(*host_, limits_, n, y);
      if (failure.ok()) failure = part;
      if (part.code() == Code::kUnavailable) break;  // the host is lost, or left to itself
      taken += n;
      limits_.own = Clock::now() + backend_.limit_;
      if (failure.ok()) send();
    }
    return failure;
  }

  /// Given up on because nobody waits for the rows: no failure of the plugin.
  bool unwanted(const Status& status) const {
    return status.code() == Code::kDeadlineExceeded && limits_.wanted &&
           Clock::now() >= *limits_.wanted;
  }

  IsolatedBackend& backend_;
  MovableMutexLock turn_;
  const std::shared_ptr<HostLife> host_;
  const Rows rows_;
  const uint64_t* const row_epochs_;
  const uint64_t pass_;
  Limits limits_;
  Status begun_;  // not ok: nothing is under way
  int64_t sent_ = 0;
  bool finished_ = false;
};

std::shared_ptr<HostLife> IsolatedBackend::host() const {
  const MutexLock guard(mutex_);
  return host_;
}

Status IsolatedBackend::forward(int64_t layer, int64_t expert, const float* x, int64_t rows,
                                float* y, ExpertContext& ctx) {
  return Call(*this, take_turn(ctx.pass), {layer, expert, x, rows, y}, ctx).finish();
}

/// The call of a layer that was begun before the others.
class IsolatedBackend::Running final : public RunningCalls {
 public:
  Running(IsolatedBackend& backend, MovableMutexLock turn, ExpertCall& call,
          const LibraryExpert& expert, const ExpertContext& ctx)
      : asked_(call),
        call_(backend, std::move(turn), {expert.layer(), expert.index(), call.x, call.rows, call.y},
              ctx) {}
  void finish() override { asked_.end(call_.finish()); }

 private:
  ExpertCall& asked_;
  Call call_;
};

std::unique_ptr<RunningCalls> IsolatedBackend::start(std::span<ExpertCall> calls,
                                                     ExpertContext& pass) {
  const int64_t most = static_cast<int64_t>(payload_.load.slot_rows) * kHostSlots;
  for (ExpertCall& call : calls) {
    // What does not fit the slots would be read from x later.
    if (call.rows > most || call.end_unwanted()) continue;
    MovableMutexLock turn(call_mutex_, std::try_to_lock);
    if (!turn.owns_lock()) return nullptr;
    return std::make_unique<Running>(*this, std::move(turn), call,
                                     static_cast<const LibraryExpert&>(*call.expert),
                                     context_of(call, pass));
  }
  return nullptr;
}

/// Waits for the oldest part under way. The plugin is asked to give up as soon as nobody wants its
/// rows, but is given the time that its manifest grants it: until then it does nothing wrong.
HostPort::Wait IsolatedBackend::await_part(HostLife& host, const Limits& limits,
                                           HostPort::Answer* answer) {
  const auto within = [&](Clock::time_point limit) {
    return limits.patience ? std::min(limit, *limits.patience) : limit;
  };
  const bool unwanted_first = limits.wanted && *limits.wanted < limits.own;
  HostPort::Wait wait =
      host.port->take(within(unwanted_first ? *limits.wanted : limits.own), answer);
  if (wait != HostPort::Wait::kLate) return wait;
  // What it would answer to being told now has nothing to do with its own time.
  if (limits.patience && Clock::now() >= *limits.patience) return wait;
  host.port->cancel(true);
  wait = host.port->take(within(limits.own + kGrace), answer);
  host.port->cancel(false);
  return wait;
}

/// The oldest part under way; copies its rows to `y` unless null. unavailable: the host is lost.
Status IsolatedBackend::take_part(HostLife& host, const Limits& limits, int64_t rows, float* y) {
  HostPort::Answer answer;
  switch (await_part(host, limits, &answer)) {
    case HostPort::Wait::kLate:
      if (limits.patience && Clock::now() < limits.own + kGrace) return leave(host, limits);
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
  if (limits.wanted && Clock::now() >= *limits.wanted) {
    return {Code::kDeadlineExceeded, "given up: the deadlines of all its rows had passed"};
  }
  return {Code::kDeadlineExceeded, fmt::format("the plugin took longer than {} ms", limit_.count()),
          "Raise library.deadline_ms in module.yaml."};
}

void IsolatedBackend::lose(HostLife& host, const std::string& why) {
  {
    const MutexLock guard(mutex_);
    if (host.end.empty()) host.end = why;
    last_error_ = "its process " + host.end;
    state_ = LibraryState::kRestarting;
    if (host_.get() == &host) host_ = nullptr;
  }
  host.port->lose();
  host.process->kill();  // the keeper sees it end
}

Status IsolatedBackend::lost_status() const {
  const MutexLock guard(mutex_);
  if (state_ == LibraryState::kQuarantined) {
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
