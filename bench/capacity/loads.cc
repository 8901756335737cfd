// capacity --memory and --loads: what modules take of memory, by the daemon's account and by the
// kernel's, and how long loads take that have to read and verify, alone, beside streams and seven
// at a time.
#include <fmt/format.h>

#include <atomic>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <thread>

#include "base/threads/mutex.h"
#include "base/threads/thread_pool.h"
#include "capacity/capacity.h"
#include "copies.h"
#include "session.h"
#include "stats.h"

namespace chimera::bench {
namespace {

// What the project promises: the account against what the kernel says, seven modules by one apply
// against one, and gaps of streams beside a load.
constexpr double kMostApart = 0.05;
constexpr double kMostSeven = 2.5;
constexpr double kMostGapLoading = 1.2;
// One load is the work of one CPU: where there are fewer than four, seven of them take as long as
// their work does on all of these, and a little for what they hinder one another.
constexpr double kHinder = 1.03;

constexpr int kSeven = 7;
// Rounds of one load and of seven: as many as this many bytes of copies allow.
constexpr int kMostRounds = 5;
constexpr uintmax_t kCopiedBytes = uintmax_t{1} << 30;
constexpr int kMostCopies = 32;  // of --memory

struct Held {
  double account = 0.0;  // of the modules
  double used = 0.0, reserve = 0.0;
  double pss = 0.0;
};

Held held_by(const DaemonProcess& daemon, Session& session) {
  const Json stats = session.call(wire::Stats{});
  const Json& memory = stats["memory"];
  Held held{.used = memory.value("used_bytes", 0.0), .reserve = memory.value("reserve_bytes", 0.0)};
  for (const auto& part : memory["parts"])
    if (part.value("use", "") == "module") held.account += part.value("bytes", 0.0);
  held.pss = pss_of(daemon);
  return held;
}

void warm_up(Session& session, uint32_t seed) {
  const auto done =
      session.client().generate(greedy_request(prompt_of(64, session.vocab(), seed), 32));
  if (!done.ok()) fail(done.error());
}

std::string first_of(const CapacityOptions& o) {
  if (o.deployment.modules.empty())
    throw std::runtime_error("--module: found none (expected the module to copy)");
  return o.deployment.modules.front();
}

DeploymentOptions without_modules(const CapacityOptions& o) {
  DeploymentOptions bare = o.deployment;
  bare.modules.clear();
  return bare;
}

/// LoadStreams answers until it ends, and keeps the milliseconds between their tokens by phase.
class LoadStreams {
 public:
  LoadStreams(const DaemonProcess& daemon, int clients, int64_t vocab) {
    for (int c = 0; c < clients; ++c)
      threads_.emplace_back([this, &daemon, c, vocab] { run(daemon, c, vocab); });
  }
  ~LoadStreams() { stop(); }
  LoadStreams(const LoadStreams&) = delete;
  LoadStreams& operator=(const LoadStreams&) = delete;

  /// From now on gaps are those of phase 0 or 1.
  void enter(int phase) { phase_ = phase; }
  void stop() {
    phase_ = kStop;
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }
  std::vector<double> gaps_ms(int phase) {
    const MutexLock lock(mutex_);
    return gaps_[phase];
  }

 private:
  static constexpr int kWarmUp = -1, kStop = 2;

  void run(const DaemonProcess& daemon, int client, int64_t vocab) {
    Session session(daemon);
    std::vector<double> gaps[2];
    for (int n = 0; phase_ != kStop; ++n) {
      double last = 0.0;
      const auto on_token = [&](const client::Token&) {
        const double now = now_s();
        const int phase = phase_;
        if (last != 0.0 && (phase == 0 || phase == 1)) gaps[phase].push_back(1e3 * (now - last));
        last = now;
      };
      const auto seed = static_cast<uint32_t>(1000 * client + n);
      if (!session.client().generate(greedy_request(prompt_of(8, vocab, seed), 200), on_token).ok())
        break;
    }
    const MutexLock lock(mutex_);
    for (int phase = 0; phase < 2; ++phase)
      gaps_[phase].insert(gaps_[phase].end(), gaps[phase].begin(), gaps[phase].end());
  }

  std::atomic<int> phase_{kWarmUp};
  Mutex mutex_;
  std::vector<double> gaps_[2] GUARDED_BY(mutex_);
  std::vector<std::thread> threads_;
};

double call_seconds(Session& session, const wire::Call& call) {
  const double begin = now_s();
  const auto done = session.client().call(call, std::chrono::minutes(30));
  if (!done.ok()) fail(done.error());
  return now_s() - begin;
}

uintmax_t bytes_in(const std::string& dir) {
  uintmax_t bytes = 0;
  for (const auto& entry : std::filesystem::directory_iterator(dir)) bytes += entry.file_size();
  return bytes;
}

double rollup_of(const DaemonProcess& daemon, const std::string& what) {
  std::ifstream rollup(fmt::format("/proc/{}/smaps_rollup", daemon.pid()));
  std::string key;
  for (double kib = 0.0; rollup >> key;)
    if (key == what && rollup >> kib) return 1024.0 * kib;
  throw std::runtime_error("found no " + what + " in smaps_rollup (expected Linux 4.14 or newer)");
}

void sleep_s(double seconds) {
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
}

}  // namespace

double pss_of(const DaemonProcess& daemon) { return rollup_of(daemon, "Pss:"); }
double rss_of(const DaemonProcess& daemon) { return rollup_of(daemon, "Rss:"); }

CapacityResult measure_memory(const CapacityOptions& o) {
  const int count = std::min(o.count, kMostCopies);
  const Copies copies(first_of(o), count, Weights::kLinked);
  const DaemonProcess daemon(without_modules(o));
  Session session(daemon);
  session.wait_ready(60.0);
  // The first loads start the threads that load: their stacks and heaps, some 5 MiB however many
  // modules come, are what the reserve is for, and no module's.
  (void)call_seconds(session,
                     wire::Apply{.wish = {.composition_json = copies.composition(
                                              0, static_cast<size_t>(std::min(count, 8)))}});
  (void)call_seconds(session, wire::Apply{.wish = {.composition_json = copies.composition(0, 0)}});
  for (uint32_t seed = 0; seed < 4; ++seed) warm_up(session, seed);
  sleep_s(1.0);  // for the last of them to go
  const Held before = held_by(daemon, session);
  (void)call_seconds(session, wire::Apply{.wish = {.composition_json = copies.composition()}});
  for (uint32_t seed = 0; seed < 4; ++seed) warm_up(session, seed);
  const Held loaded = held_by(daemon, session);
  (void)call_seconds(session, wire::Apply{.wish = {.composition_json = copies.composition(0, 0)}});
  sleep_s(1.0);  // for the last of them to go
  const Held after = held_by(daemon, session);

  const double account = loaded.account - before.account, pss = loaded.pss - before.pss;
  const double ratio = pss / account;
  constexpr double kMiB = 1 << 20;
  CapacityResult result;
  result.figures = {{"modules", count},
                    {"account_bytes", account},
                    {"pss_bytes", pss},
                    {"pss_to_account", ratio},
                    {"kept_pss_bytes", after.pss - before.pss},
                    {"kept_account_bytes", after.account - before.account},
                    {"used_bytes", loaded.used},
                    {"all_pss_bytes", loaded.pss}};
  result.lines = {
      fmt::format("{} modules: {:.1f} MiB by the account, {:.1f} MiB by the kernel (PSS), {:.3f}",
                  count, account / kMiB, pss / kMiB, ratio),
      fmt::format("all of the daemon: {:.1f} MiB of the account, at the most that it may take; "
                  "{:.1f} MiB by the kernel",
                  loaded.used / kMiB, loaded.pss / kMiB),
      fmt::format("unloaded: {:.1f} MiB of the account and {:.1f} MiB by the kernel are left",
                  (after.account - before.account) / kMiB, (after.pss - before.pss) / kMiB)};
  result.within = std::abs(ratio - 1.0) <= kMostApart && loaded.pss <= loaded.used + loaded.reserve;
  return result;
}

CapacityResult measure_loads(const CapacityOptions& o) {
  const uintmax_t round_bytes = (1 + kSeven) * bytes_in(first_of(o));
  const int rounds = static_cast<int>(
      std::clamp<uintmax_t>(kCopiedBytes / std::max<uintmax_t>(round_bytes, 1), 1, kMostRounds));
  const Copies copies(first_of(o), 1 + rounds * (1 + kSeven), Weights::kDistinct);
  const DaemonProcess daemon(without_modules(o));
  Session session(daemon);
  session.wait_ready(60.0);
  warm_up(session, 1);
  std::vector<double> alones, sevens;
  for (int round = 0; round < rounds; ++round) {
    const auto first = static_cast<size_t>(1 + round * (1 + kSeven));
    const wire::Apply apply{.wish = {.composition_json = copies.composition(first + 1, kSeven)}};
    alones.push_back(call_seconds(session, wire::Load{copies.path(first), {}, {}, {}, {}, false}));
    (void)call_seconds(session, wire::Unload{copies.names()[first]});
    sevens.push_back(call_seconds(session, apply));
    (void)call_seconds(session,
                       wire::Apply{.wish = {.composition_json = copies.composition(0, 0)}});
  }
  const double alone = quantile(alones, 0.5), seven = quantile(sevens, 0.5);

  LoadStreams streams(daemon, std::min(o.clients, 4), session.vocab());
  sleep_s(1.0);
  streams.enter(0);
  sleep_s(std::min(o.seconds, 5.0));
  streams.enter(1);
  const double beside = call_seconds(session, wire::Load{copies.path(0), {}, {}, {}, {}, false});
  streams.stop();
  const double quiet_ms = quantile(streams.gaps_ms(0), 0.99);
  const double loading_ms = quantile(streams.gaps_ms(1), 0.99);

  CapacityResult result;
  const int cpus = auto_threads();
  const double most_seven = std::max(kMostSeven, kHinder * kSeven / cpus);
  result.figures = {{"cpus", cpus},
                    {"rounds", rounds},
                    {"alone_s", alone},
                    {"seven_s", seven},
                    {"seven_to_one", seven / alone},
                    {"beside_streams_s", beside},
                    {"gap_p99_ms", {{"quiet", quiet_ms}, {"loading", loading_ms}}},
                    {"gap_p99_loading_to_quiet", loading_ms / quiet_ms}};
  result.lines = {
      fmt::format("one module {:.3f} s; seven by one apply {:.3f} s, {:.2f} times as long (at most "
                  "{:.2f} on {} CPUs)",
                  alone, seven, seven / alone, most_seven, cpus),
      fmt::format("beside {} streams {:.3f} s; their inter-token p99 {:.2f} ms quiet, {:.2f} ms "
                  "meanwhile, {:.2f} times",
                  std::min(o.clients, 4), beside, quiet_ms, loading_ms, loading_ms / quiet_ms)};
  result.within = seven <= most_seven * alone && loading_ms <= kMostGapLoading * quiet_ms;
  return result;
}

}  // namespace chimera::bench
