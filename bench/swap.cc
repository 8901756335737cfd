// swap: does changing modules disturb the streams?
//
// N clients stream greedy answers all the time. Quiet and swapping phases alternate, so that a
// drift of the machine meets both; in a swapping phase a control client loads, swaps and unloads
// the given modules at a fixed rate. Reported: time between two tokens of one stream, ms, p50 and
// p99, of both kinds of phase, and their ratio; changes made; requests failed.
#include <fmt/format.h>

#include <atomic>
#include <exception>
#include <filesystem>
#include <mutex>
#include <thread>

#include "bench.h"
#include "options.h"
#include "session.h"
#include "stats.h"

namespace chimera::bench {
namespace {

struct SwapOptions {
  DeploymentOptions deployment;
  std::vector<std::string> swapped;
  int clients = 16;
  double changes_per_second = 8.0;
  double seconds = 60.0;
  int phases = 6;  // pairs of quiet and swapping
};

enum class Phase : int { kWarmUp, kQuiet, kSwapping, kStop };

struct Shared {
  std::atomic<Phase> phase{Phase::kWarmUp};
  std::atomic<uint64_t> requests{0}, failed{0};
  std::mutex mutex;
  std::vector<double> gaps_ms[2];  // quiet, swapping
  std::string first_error;
};

void stream(const DaemonProcess& daemon, uint32_t seed, int64_t vocab, Shared& shared) {
  Session session(daemon);
  std::vector<double> gaps[2];
  for (uint32_t n = 0; shared.phase != Phase::kStop; ++n) {
    double last = 0.0;
    const auto on_token = [&](const client::Token&) {
      const double now = now_s();
      const Phase phase = shared.phase;
      if (last != 0.0 && phase == Phase::kQuiet) gaps[0].push_back(1e3 * (now - last));
      if (last != 0.0 && phase == Phase::kSwapping) gaps[1].push_back(1e3 * (now - last));
      last = now;
    };
    const auto done = session.client().generate(
        greedy_request(prompt_of(8, vocab, 1000 * seed + n), 32), on_token);
    ++shared.requests;
    if (done.ok() && done->finish_reason == "length") continue;
    ++shared.failed;
    const std::lock_guard lock(shared.mutex);
    if (shared.first_error.empty())
      shared.first_error = done.ok() ? "ended by " + done->finish_reason : done.error().message;
  }
  const std::lock_guard lock(shared.mutex);
  for (int i = 0; i < 2; ++i)
    shared.gaps_ms[i].insert(shared.gaps_ms[i].end(), gaps[i].begin(), gaps[i].end());
}

/// One swapping phase; returns the number of changes. load, swap (load again), unload, in turn.
int change_modules(Session& control, const SwapOptions& o, double seconds, int already) {
  const double begin = now_s();
  int changes = 0;
  std::string loaded;
  while (now_s() - begin < seconds || !loaded.empty()) {
    const int step = (already + changes) % 3;
    if (step == 2 || now_s() - begin >= seconds) {
      if (!loaded.empty()) (void)control.call(wire::Unload{loaded});
      loaded.clear();
    } else {
      const size_t which = static_cast<size_t>(changes / 3) % o.swapped.size();
      const auto done = control.call(wire::Load{o.swapped[which], {}, {}, {}, false});
      // Loading the very same module again changes nothing and says so.
      const auto& made = done.at("changes");
      if (!made.empty()) loaded = made.at(0).at("module").get<std::string>();
    }
    ++changes;
    const double next = begin + changes / o.changes_per_second;
    if (next > now_s()) std::this_thread::sleep_for(std::chrono::duration<double>(next - now_s()));
  }
  return changes;
}

void report(const SwapOptions& o, Shared& shared, int changes) {
  double value[2][2];
  fmt::print("{:<10}{:>12}{:>12}{:>12}\n", "", "tokens", "p50 ms", "p99 ms");
  for (int i = 0; i < 2; ++i) {
    value[i][0] = quantile(shared.gaps_ms[i], 0.50);
    value[i][1] = quantile(shared.gaps_ms[i], 0.99);
    fmt::print("{:<10}{:>12}{:>12.3f}{:>12.3f}\n", i == 0 ? "quiet" : "swapping",
               shared.gaps_ms[i].size(), value[i][0], value[i][1]);
  }
  fmt::print("{:<10}{:>12}{:>11.2f}x{:>11.2f}x\n", "ratio", "", value[1][0] / value[0][0],
             value[1][1] / value[0][1]);
  fmt::print("{} clients, {} requests, {} failed; {} changes in {:.0f} s of swapping ({:.1f}/s)\n",
             o.clients, shared.requests.load(), shared.failed.load(), changes, o.seconds,
             changes / o.seconds);
  if (!shared.first_error.empty()) fmt::print("first failure: {}\n", shared.first_error);
}

int run(const SwapOptions& o) {
  const DaemonProcess daemon(o.deployment);
  Session control(daemon);
  control.wait_ready(60.0);
  const int64_t vocab = control.vocab();
  Shared shared;
  std::vector<std::thread> threads;
  for (int c = 0; c < o.clients; ++c)
    threads.emplace_back([&, c] { stream(daemon, static_cast<uint32_t>(c), vocab, shared); });

  int changes = 0;
  std::string error;
  try {
    std::this_thread::sleep_for(std::chrono::seconds(1));
    const double part = o.seconds / o.phases;
    for (int p = 0; p < o.phases; ++p) {
      shared.phase = Phase::kQuiet;
      std::this_thread::sleep_for(std::chrono::duration<double>(part));
      shared.phase = Phase::kSwapping;
      changes += change_modules(control, o, part, changes);
    }
  } catch (const std::exception& e) {
    error = e.what();
  }
  shared.phase = Phase::kStop;
  for (std::thread& t : threads) t.join();
  if (!error.empty()) throw std::runtime_error(error);
  report(o, shared, changes);
  return shared.failed == 0 ? 0 : 1;
}

}  // namespace

int run_swap(const std::vector<std::string>& args) {
  namespace po = boost::program_options;
  SwapOptions o;
  auto description = daemon_options(o.deployment);
  description.add_options()("swap", po::value(&o.swapped)->composing()->required(),
                            "module directory to load and unload, repeatable");
  description.add_options()("clients", po::value(&o.clients)->default_value(16),
                            "streaming clients");
  description.add_options()("rate", po::value(&o.changes_per_second)->default_value(8.0),
                            "changes per second");
  description.add_options()("seconds", po::value(&o.seconds)->default_value(60.0),
                            "length of all swapping phases together");
  if (const auto exit = parse(description, args)) return *exit;
  o.deployment.max_sequences = o.clients;
  for (std::string& path : o.swapped) path = std::filesystem::absolute(path).string();
  try {
    return run(o);
  } catch (const std::exception& error) {
    fmt::print(stderr, "chimera-bench: swap: {}\n", error.what());
    return 1;
  }
}

}  // namespace chimera::bench
