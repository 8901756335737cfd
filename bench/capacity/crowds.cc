// capacity --crowds: many clients at once. 16, 64, 256 and 1,000 of them (up to --most) each send
// one request after another, as fast as they are answered; the daemon runs at most kMostSequences
// of them together and lets the others wait. The connections are those that the asynchronous client
// opens for so many requests.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>

#include "base/threads/mutex.h"
#include "capacity.h"
#include "chimera_client/async_client.h"
#include "session.h"
#include "stats.h"

namespace chimera::bench {
namespace {

constexpr int kCrowds[] = {16, 64, 256, 1000};
constexpr int kMostSequences = 256;
constexpr int64_t kPromptTokens = 8, kAnswer = 32;

client::Options crowd_options(const DaemonProcess& daemon) {
  client::Options options;
  options.serve = daemon.serve_endpoint();
  options.control = daemon.control_endpoint();
  return options;
}

/// Clients of one daemon until it ends.
class Crowd {
 public:
  Crowd(const DaemonProcess& daemon, int64_t vocab)
      : vocab_(vocab), client_(crowd_options(daemon)) {}

  struct Seen {
    std::vector<double> first_ms, gap_ms;
    uint64_t tokens = 0, answers = 0, failed = 0;
  };

  /// So many clients for so long; then waits for their last answers.
  Seen run(int clients, double seconds) {
    stop_at_ = now_s() + seconds;
    {
      const MutexLock lock(mutex_);
      seen_ = {};
      running_ = clients;
    }
    for (int c = 0; c < clients; ++c) send(static_cast<uint32_t>(c + 1));
    const MutexLock lock(mutex_);
    ended_.wait(mutex_, [this]() REQUIRES(mutex_) { return running_ == 0; });
    return std::move(seen_);
  }

 private:
  void send(uint32_t seed) {
    struct Times {
      double sent = now_s(), last = 0.0;
    };
    auto times = std::make_shared<Times>();
    (void)client_.send(greedy_request(prompt_of(kPromptTokens, vocab_, seed), kAnswer),
                       [this, seed, times](const client::Result<client::Event>& event) {
                         const double now = now_s();
                         const bool token = event.ok() && event->is_token();
                         if (token)
                           return note_token(now, times->sent, std::exchange(times->last, now));
                         if (event.ok() && !event->is_final()) return;
                         const bool again = note_end(event.ok() && !event->is_error(), now);
                         if (again) send(seed + 100'000);
                       });
  }

  void note_token(double now, double sent, double last) {
    const MutexLock lock(mutex_);
    ++seen_.tokens;
    if (last == 0.0)
      seen_.first_ms.push_back(1e3 * (now - sent));
    else
      seen_.gap_ms.push_back(1e3 * (now - last));
  }
  /// Whether the client goes on.
  bool note_end(bool answered, double now) {
    const MutexLock lock(mutex_);
    ++(answered ? seen_.answers : seen_.failed);
    // One that was refused would only ask again, without end.
    if (answered && now < stop_at_) return true;
    if (--running_ == 0) ended_.notify_all();
    return false;
  }

  const int64_t vocab_;
  double stop_at_ = 0.0;  // set while nothing runs
  Mutex mutex_;
  CondVar ended_;
  Seen seen_ GUARDED_BY(mutex_);
  int running_ GUARDED_BY(mutex_) = 0;
  client::AsyncClient client_;  // first to go: its thread calls the above
};

int64_t entries_of(const DaemonProcess& daemon, const char* what) {
  const std::filesystem::directory_iterator all(fmt::format("/proc/{}/{}", daemon.pid(), what));
  return std::distance(begin(all), end(all));
}

}  // namespace

CapacityResult measure_crowds(const CapacityOptions& o) {
  DeploymentOptions deployment = o.deployment;
  deployment.max_sequences = kMostSequences;
  deployment.max_queue = kCrowds[std::size(kCrowds) - 1];
  deployment.max_context = 256;
  const DaemonProcess daemon(deployment);
  Session session(daemon);
  session.wait_ready(60.0);
  CapacityResult result;
  result.figures = Json::array();
  for (const int clients : kCrowds) {
    if (clients > o.most) continue;
    Crowd crowd(daemon, session.vocab());
    const double begin = now_s();
    const Crowd::Seen seen = crowd.run(clients, o.seconds);
    const double rate = static_cast<double>(seen.tokens) / (now_s() - begin);
    const double pss = pss_of(daemon) / (1 << 20);
    const int64_t threads = entries_of(daemon, "task"), descriptors = entries_of(daemon, "fd");
    const auto q = [](const std::vector<double>& ms, double at) { return quantile(ms, at); };
    result.figures.push_back(
        {{"clients", clients},
         {"tokens_per_s", rate},
         {"first_ms", {{"p50", q(seen.first_ms, 0.5)}, {"p99", q(seen.first_ms, 0.99)}}},
         {"gap_ms", {{"p50", q(seen.gap_ms, 0.5)}, {"p99", q(seen.gap_ms, 0.99)}}},
         {"answers", seen.answers},
         {"failed", seen.failed},
         {"pss_mib", pss},
         {"threads", threads},
         {"descriptors", descriptors}});
    result.lines.push_back(fmt::format(
        "{:4} clients: {:.0f} tokens/s; first token {:.0f} ms (p99 {:.0f}), then every {:.1f} ms "
        "(p99 {:.1f}); {} failed; {:.0f} MiB (PSS), {} threads, {} descriptors",
        clients, rate, q(seen.first_ms, 0.5), q(seen.first_ms, 0.99), q(seen.gap_ms, 0.5),
        q(seen.gap_ms, 0.99), seen.failed, pss, threads, descriptors));
    result.within = result.within && seen.failed == 0;
  }
  return result;
}

}  // namespace chimera::bench
