// capacity --epochs: how fast epochs follow one another. Changes are sent when they are due, not
// when the one before was answered: a daemon that is too slow has more and more of them waiting,
// and says so by its latencies.
#include <fmt/format.h>

#include <atomic>
#include <stdexcept>
#include <thread>

#include "base/threads/mutex.h"
#include "capacity/capacity.h"
#include "chimera_client/async_client.h"
#include "session.h"
#include "stats.h"

namespace chimera::bench {
namespace {

enum class Phase : int { kWarmUp, kQuiet, kChanging, kStop };

// What the project promises of 200 changes per second.
constexpr double kLeastDone = 0.95;
constexpr double kMostMs = 250.0;

struct Streams {
  std::atomic<Phase> phase{Phase::kWarmUp};
  std::atomic<uint64_t> requests{0}, failed{0}, unused{0};
  Mutex mutex;
  std::vector<double> gaps_ms[2];  // quiet, changing
};

/// Answers long enough that several are on many epochs at once, of lengths that differ.
void stream(const DaemonProcess& daemon, uint32_t seed, int64_t vocab, const std::string& module,
            Streams& streams) {
  Session session(daemon);
  std::vector<double> gaps[2];
  for (uint32_t n = 0; streams.phase != Phase::kStop; ++n) {
    double last = 0.0;
    const auto on_token = [&](const client::Token&) {
      const double now = now_s();
      const Phase phase = streams.phase;
      const bool counts = phase == Phase::kQuiet || phase == Phase::kChanging;
      if (last != 0.0 && counts)
        gaps[phase == Phase::kChanging ? 1 : 0].push_back(1e3 * (now - last));
      last = now;
    };
    const auto done = session.client().generate(
        greedy_request(prompt_of(8, vocab, 1000 * seed + n), 100 + 10 * seed), on_token);
    ++streams.requests;
    if (!done.ok() || done->finish_reason != "length") {
      ++streams.failed;
      continue;
    }
    const auto used = done->provenance.modules.find(module);
    if (used == done->provenance.modules.end() || used->second.share <= 0.0) ++streams.unused;
  }
  const MutexLock lock(streams.mutex);
  for (int i = 0; i < 2; ++i)
    streams.gaps_ms[i].insert(streams.gaps_ms[i].end(), gaps[i].begin(), gaps[i].end());
}

struct Changes {
  Mutex mutex;
  CondVar answered;
  uint64_t sent = 0, done = 0, refused = 0;
  double last_answer = 0.0;
  std::vector<double> ms;
  std::string first_refusal;
};

client::Options control_of(const DaemonProcess& daemon) {
  client::Options options;
  options.serve = daemon.serve_endpoint();
  options.control = daemon.control_endpoint();
  return options;
}

/// Biases that differ from one another by little, so that the module goes on being used.
double bias_of(int n) { return 0.001 * (n % 500 + 1); }

void send_changes(const DaemonProcess& daemon, const std::string& module, const CapacityOptions& o,
                  Changes& changes) {
  client::AsyncClient control(control_of(daemon));
  const double begin = now_s();
  const int count = static_cast<int>(o.rate * o.seconds);
  for (int n = 0; n < count; ++n) {
    const double due = begin + n / o.rate;
    if (due > now_s()) std::this_thread::sleep_for(std::chrono::duration<double>(due - now_s()));
    {
      const MutexLock lock(changes.mutex);
      ++changes.sent;
    }
    control.send(wire::Bias{module, bias_of(n)}, [&, due](client::Result<client::Event> event) {
      const MutexLock lock(changes.mutex);
      changes.last_answer = now_s();
      if (event.ok() && !event->is_error()) {
        ++changes.done;
        changes.ms.push_back(1e3 * (changes.last_answer - due));
      } else {
        ++changes.refused;
        if (changes.first_refusal.empty())
          changes.first_refusal = event.ok() ? event->error().message : event.error().message;
      }
      changes.answered.notify_one();
    });
  }
  const MutexLock lock(changes.mutex);
  const bool all = changes.answered.wait_for(changes.mutex, std::chrono::seconds(60), [&] {
    return changes.done + changes.refused == changes.sent;
  });
  if (!all) throw std::runtime_error("found changes without an answer after 60 s");
  changes.last_answer -= begin;
}

std::string first_module(Session& control) {
  const Json report = control.call(wire::Modules{});
  for (const auto& module : report["modules"]) return module.value("name", "");
  throw std::runtime_error("--module: found none (expected at least one)");
}

CapacityResult result_of(const CapacityOptions& o, const Streams& streams, const Changes& changes,
                         int64_t most_epochs) {
  const double seconds = std::max(o.seconds, changes.last_answer);
  const double per_second = static_cast<double>(changes.done) / seconds;
  const double p50 = quantile(changes.ms, 0.50), p99 = quantile(changes.ms, 0.99);
  const auto gap = [&](int phase, double q) { return quantile(streams.gaps_ms[phase], q); };
  CapacityResult result;
  result.figures = {{"clients", o.clients},
                    {"asked_per_second", o.rate},
                    {"done_per_second", per_second},
                    {"refused", changes.refused},
                    {"change_ms", {{"p50", p50}, {"p99", p99}}},
                    {"gap_ms",
                     {{"quiet", {{"p50", gap(0, 0.5)}, {"p99", gap(0, 0.99)}}},
                      {"changing", {{"p50", gap(1, 0.5)}, {"p99", gap(1, 0.99)}}}}},
                    {"epochs_in_use", most_epochs},
                    {"requests", streams.requests.load()},
                    {"requests_failed", streams.failed.load()},
                    {"requests_without_the_module", streams.unused.load()}};
  result.lines = {
      fmt::format("{:.1f} changes per second of {:.0f} asked for, {} refused", per_second, o.rate,
                  changes.refused),
      fmt::format("answered in {:.1f} ms (p99 {:.1f})", p50, p99),
      fmt::format("inter-token ms quiet {:.2f} (p99 {:.2f}), changing {:.2f} (p99 {:.2f})",
                  gap(0, 0.5), gap(0, 0.99), gap(1, 0.5), gap(1, 0.99)),
      fmt::format("{} requests, {} failed, {} without the module; {} epochs in use at most",
                  streams.requests.load(), streams.failed.load(), streams.unused.load(),
                  most_epochs)};
  if (!changes.first_refusal.empty())
    result.lines.push_back("first refusal: " + changes.first_refusal);
  result.within = changes.refused == 0 && streams.failed == 0 && p99 <= kMostMs &&
                  per_second >= kLeastDone * o.rate;
  return result;
}

}  // namespace

CapacityResult measure_epochs(const CapacityOptions& o) {
  const DaemonProcess daemon(o.deployment);
  Session control(daemon);
  control.wait_ready(60.0);
  const std::string module = first_module(control);
  const int64_t vocab = control.vocab();
  Streams streams;
  Changes changes;
  std::vector<std::thread> threads;
  for (int c = 0; c < o.clients; ++c) {
    threads.emplace_back(
        [&, c] { stream(daemon, static_cast<uint32_t>(c), vocab, module, streams); });
  }
  const auto wait = [](double seconds) {
    std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  };
  int64_t most_epochs = 0;
  std::string error;
  try {
    wait(1.0);
    streams.phase = Phase::kQuiet;
    wait(std::min(o.seconds, 10.0));
    streams.phase = Phase::kChanging;
    std::atomic<bool> over{false};
    std::thread watcher([&] {
      Session session(daemon);
      while (!over) {
        const Json epochs = session.call(wire::Epochs{});
        int64_t live = 0;
        for (const auto& epoch : epochs["live"]) live += epoch.value("epoch", int64_t{0}) > 0;
        most_epochs = std::max(most_epochs, live);
        wait(0.5);
      }
    });
    try {
      send_changes(daemon, module, o, changes);
    } catch (const std::exception& e) {
      error = e.what();
    }
    over = true;
    watcher.join();
  } catch (const std::exception& e) {
    error = e.what();
  }
  streams.phase = Phase::kStop;
  for (std::thread& t : threads) t.join();
  if (!error.empty()) throw std::runtime_error(error);
  return result_of(o, streams, changes, most_epochs);
}

}  // namespace chimera::bench
