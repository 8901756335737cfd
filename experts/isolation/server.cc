#include "experts/isolation/server.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <latch>
#include <thread>

#include "base/threads/thread_pool.h"
#include "compute/kernels/kernels.h"
#include "experts/isolation/channel.h"
#include "experts/isolation/memory.h"
#include "experts/isolation/payload.h"
#include "experts/isolation/process.h"
#include "experts/isolation/sandbox/sandbox.h"

namespace chimera {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds kLoadMessage{10'000};  // until the daemon has sent it
constexpr milliseconds kTick{1000};           // between two looks at the counters
// Address space beyond what the daemon handed over and what chimera.memory/1 may take: code,
// stacks, and 64 MiB that each thread's heap reserves.
constexpr uint64_t kFixedSpace = uint64_t{1} << 30;
constexpr uint64_t kSpacePerThread = 80u << 20;

// A call this short on one thread stays there: waking workers costs 2 to 30 us, and the daemon's
// own threads compute meanwhile.
constexpr std::chrono::microseconds kShortCall{100};

enum ExitStatus : int { kStopped = 0, kNotLoaded = 1, kNoDaemon = 2, kBrokenProtocol = 3 };

/// Runs calls until stop(). Its thread exists from the start; it begins to serve when told to.
class CallServer {
 public:
  CallServer(std::unique_ptr<HostServePort> port, uint32_t threads)
      : port_(std::move(port)), thread_([this, threads] { run(static_cast<int>(threads)); }) {
    pool_made_.wait();  // no thread is made once the sandbox is locked
  }
  ~CallServer() { stop(); }

  void serve(LibraryBackend* backend) {
    backend_ = backend;
    begin_.count_down();
  }
  void stop() {
    if (!thread_.joinable()) return;
    stop_ = true;
    port_->stop();
    if (backend_ == nullptr) begin_.count_down();
    thread_.join();
  }

 private:
  void run(int threads) {
    ThreadPool all(threads), one(1);
    pool_made_.count_down();
    begin_.wait();
    FloatBuffer scratch;
    HostServePort::Call call;
    while (!stop_) {
      const Result<bool> got = port_->next(milliseconds(10'000), &call);
      if (!got.ok()) std::_Exit(kBrokenProtocol);
      if (*got) answer(call, short_call(call.request.rows) ? one : all, scratch);
    }
  }

  void answer(const HostServePort::Call& call, ThreadPool& pool, FloatBuffer& scratch) {
    ExpertContext context{best_kernels(), pool, scratch};
    context.deadline_ns = call.request.deadline_ns;
    context.cancel = port_->cancel_flag();
    context.limit_ns = call.request.limit_ns;
    context.row_epochs = call.row_epochs;
    const Clock::time_point start = Clock::now();
    const Status status = backend_->forward(call.request.layer, call.request.expert, call.x,
                                            call.request.rows, call.y, context);
    const std::chrono::nanoseconds took = Clock::now() - start;
    if (pool.threads() == 1 && call.request.rows > 0)
      row_time_ = std::min(row_time_, took / call.request.rows);
    port_->reply(status, static_cast<uint64_t>(took.count()));
  }

  /// The shortest time of a row so far tells; until there is one, a single row does.
  bool short_call(uint32_t rows) const {
    if (row_time_ == std::chrono::nanoseconds::max()) return rows <= 1;
    return row_time_ * rows <= kShortCall;
  }

  const std::unique_ptr<HostServePort> port_;
  std::latch pool_made_{1}, begin_{1};
  std::atomic<bool> stop_{false};
  LibraryBackend* backend_ = nullptr;
  std::chrono::nanoseconds row_time_ = std::chrono::nanoseconds::max();  // on one thread
  std::thread thread_;
};

/// Where the lines of plugin and loader go. Once the library is being retired, remarks on how well
/// it unloads are of no use: the process ends.
struct LogSink {
  const HostChannel& channel;
  std::atomic<bool> retiring{false};
};

std::shared_ptr<LibraryRuntime> make_runtime(LogSink& sink, uint32_t workers) {
  LibraryRuntime::Options options;
  options.allow_in_process = true;
  options.worker_count = workers;
  options.log = [&sink](LibraryRuntime::Severity severity, const std::string&,
                        const std::string& line) {
    if (sink.retiring && severity != LibraryRuntime::Severity::kError) return;
    // Lines that the daemon does not keep up with are lost; nobody waits for a log.
    (void)sink.channel.send(HostMessage::kLog, encode(HostLog{severity, line}));
  };
  return std::make_shared<LibraryRuntime>(std::move(options));
}

int refuse(const HostChannel& channel, const Status& status) {
  (void)channel.send(HostMessage::kFailed, encode(HostFailed{status}));
  return kNotLoaded;
}

/// The control role: the daemon's messages, and the counters now and then.
int control(const HostChannel& channel, const LibraryBackend& backend) {
  HostCounters sent;
  for (;;) {
    const Result<HostChannel::Received> message = channel.receive(kTick);
    if (message.ok() && message->frame.type == HostMessage::kStop) return kStopped;
    if (message.ok() || message.status().code() == Code::kDataCorrupt) return kBrokenProtocol;
    if (message.status().code() != Code::kDeadlineExceeded) return kNoDaemon;
    HostCounters now = backend.status().counters;
    if (now == sent) continue;
    sent = std::move(now);
    (void)channel.send(HostMessage::kCounters, encode(sent));
  }
}

int serve(HostChannel& channel, Sandbox& sandbox, UnpackedPayload payload) {
  const uint32_t workers = payload.worker_count;
  auto port = HostServePort::attach(payload.geometry, payload.memory.at(0), payload.memory.at(1));
  if (!port.ok()) return refuse(channel, port.status());
  payload.memory = ReceivedFds();
  LogSink sink{channel};
  const auto runtime = make_runtime(sink, workers);
  sandbox.before_loading(kFixedSpace + kSpacePerThread * (workers + 2) + 2 * payload.bytes +
                         (static_cast<uint64_t>(payload.source.spec.memory_mib) << 20));
  CallServer calls(std::move(*port), workers);
  auto backend = open_in_process(std::move(payload.source), runtime);
  if (!backend.ok()) return refuse(channel, backend.status());
  sandbox.lock_down();
  const HostReady ready{(*backend)->info(), sandbox.report(), (*backend)->resident_bytes()};
  if (!channel.send(HostMessage::kReady, encode(ready)).ok()) return kNoDaemon;
  calls.serve(backend->get());
  const int status = control(channel, **backend);
  if (status != kStopped) std::_Exit(status);
  sink.retiring = true;
  calls.stop();
  backend->reset();
  return kStopped;
}

}  // namespace

int run_plugin_host(pid_t parent) {
  Sandbox sandbox;
  if (!sandbox.enter(kHostControlFd, parent)) return kNoDaemon;
  HostChannel channel(kHostControlFd);
  Result<HostChannel::Received> received = channel.receive(kLoadMessage);
  if (!received.ok()) return kNoDaemon;
  Result<UnpackedPayload> payload = unpack_host_payload(std::move(*received));
  if (!payload.ok()) return refuse(channel, payload.status());
  return serve(channel, sandbox, std::move(*payload));
}

}  // namespace chimera
